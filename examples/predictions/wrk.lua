-- For `load.sh`: requests for pairings by zipf's law (exponent 1), and the figures of wrk in one
-- line.

local teams = {
  "ManCity", "Liverpool", "Arsenal", "Newcastle", "Tottenham",
  "Chelsea", "AstonVilla", "ManUnited", "Brighton", "Brentford",
  "WestHam", "CrystalPalace", "Bournemouth", "Fulham", "NottinghamForest",
  "Wolves", "Leeds", "Everton", "Sunderland", "Burnley",
}

local paths, bounds = {}, {}
local seeded = 0

function setup(thread)
  seeded = seeded + 1
  thread:set("seed", seeded)
end

function init(args)
  math.randomseed(seed)
  local all = 0
  for sum = 3, 2 * #teams do
    for home = math.max(1, sum - #teams), math.min(#teams, sum - 1) do
      local away = sum - home
      if home ~= away then
        paths[#paths + 1] = wrk.format("GET", "/predict/" .. teams[home] .. "/" .. teams[away])
        all = all + 1 / #paths
        bounds[#bounds + 1] = all
      end
    end
  end
end

-- Only the zipf mix makes its requests here; without the argument wrk sends the URL it was given.
function zipf()
  local drawn = math.random() * bounds[#bounds]
  local low, high = 1, #bounds
  while low < high do
    local middle = math.floor((low + high) / 2)
    if bounds[middle] < drawn then low = middle + 1 else high = middle end
  end
  return paths[low]
end

if os.getenv("MIX") == "zipf" then
  request = zipf
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format("figures %d %d %d %d\n",
    summary.requests, latency:percentile(50), latency:percentile(99), failed))
end
