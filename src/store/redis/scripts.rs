//! The operations of the lease as scripts. The server runs each script atomically.
//!
//! The contracts are in [`Store`](crate::store::Store). The scripts declare no flags. So when the
//! server is out of memory only the scripts that store fail, and an invalidation still works.

use redis::{Cmd, Value};

use super::classify::{self, Failure};
use super::supervisor::Link;

/// The beginning of every script. An epoch counts only if its second copy agrees; numbers in
/// scripts are exact below 2^53. A lease is the 16-byte token of its holder, followed by the base
/// in decimal. An overtaken holder keeps the token, so that no other process loads, but loses the
/// base, so that its result is refused. A cool-down is the word "cooling;", followed by the 8-byte
/// names of the processes that failed. A lease that is granted in a cool-down ends with ";" and
/// these names.
///
/// An epoch ahead of the clock comes from before the clock was set back. Its successor is the
/// present time, and differs from it. The reasons why no promise is broken are at `next_epoch` in
/// `store::step`.
const PRELUDE: &str = r"
local END = 9007199254740991
local AT_ONCE = 1000000
local CLOCK_ERROR = 1000000
local function stored()
  local head = redis.call('GETRANGE', KEYS[1], 0, 19)
  if #head < 20 or string.sub(head, 1, 3) ~= 'EVF' then return 0 end
  local epoch, inverse = struct.unpack('>I8I8', string.sub(head, 5, 20))
  if epoch < 1 or epoch >= END or epoch + inverse ~= END then return 0 end
  return epoch
end
local function time()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function is_ahead(epoch)
  return epoch > time() + CLOCK_ERROR
end
local function later(epoch)
  if is_ahead(epoch) then return time() end
  return math.max(epoch + 1, time())
end
local function store(payload, ttl, epoch)
  redis.call('SET', KEYS[1], payload, 'PX', ttl)
  redis.call('SETRANGE', KEYS[1], 4, struct.pack('>I8I8', epoch, END - epoch))
end
-- 0: nothing stored is later than a write, 1: a loaded value, 2: a write of another caller.
local function later_than(born, seen, epoch)
  if epoch == 0 or epoch == seen or is_ahead(epoch) then return 0 end
  local head = redis.call('GETRANGE', KEYS[1], 3, 85)
  if #head == 83 and string.byte(head) == 1 and bit.band(string.byte(head, 75), 2) ~= 0 then
    return math.min(struct.unpack('>I8', string.sub(head, 76)), epoch) > born and 2 or 0
  end
  return epoch > born and 1 or 0
end
local function base_of(lease)
  return string.match(lease, '^%d*', 17)
end
local function cools(lease)
  return lease and string.sub(lease, 1, 8) == 'cooling;'
end
local function failed_of(lease)
  return string.sub(lease, cools(lease) and 9 or 18 + #base_of(lease))
end
local function named(failed, token)
  for at = 1, #failed, 8 do
    if string.sub(failed, at, at + 7) == string.sub(token, 1, 8) then return true end
  end
end
local function notify(channel, message, epoch)
  redis.call('PUBLISH', channel, message .. struct.pack('>I8', epoch))
end
local function remove(channel, message, epoch)
  redis.call('DEL', KEYS[1], KEYS[2])
  notify(channel, message, epoch)
end
local function holds(lease, token)
  return lease and string.sub(lease, 1, 16) == token
end
";

/// Arguments: the epoch seen or 0, the token, the lease in ms, the largest payload.
/// A payload is not returned, because the connection for scripts has subscriptions: a server ends
/// such a connection if much waits to be sent on it.
const ACQUIRE: &str = r"
local base = stored()
if base ~= 0 and base ~= tonumber(ARGV[1])
  and redis.call('STRLEN', KEYS[1]) <= tonumber(ARGV[4]) then
  return {3, base}
end
local lease = redis.call('GET', KEYS[2])
local failed = ''
if holds(lease, ARGV[2]) then
  if base == 0 then base = tonumber(base_of(lease)) or 0 end
  failed = failed_of(lease)
elseif lease then
  local left = redis.call('PTTL', KEYS[2])
  if cools(lease) then
    failed = failed_of(lease)
    if left >= 0 and (#failed >= 128 or named(failed, ARGV[2])) then return {2, left} end
  elseif left >= 0 then
    return {1, left}
  end
end
if base == 0 then base = later(0) end
if #failed > 0 then failed = ';' .. failed end
redis.call('SET', KEYS[2], ARGV[2] .. string.format('%.0f', base) .. failed, 'PX', ARGV[3])
return {0, base}
";

/// Arguments: the base, the token, the hard limit in ms, the payload, the channel, the message.
const PUBLISH: &str = r"
local epoch = stored()
local lease = redis.call('GET', KEYS[2])
local ours = holds(lease, ARGV[2])
local accepted = ours and base_of(lease) == ARGV[1]
if epoch ~= 0 then accepted = epoch == tonumber(ARGV[1]) end
if accepted then
  epoch = later(epoch)
  store(ARGV[4], ARGV[3], epoch)
  notify(ARGV[5], ARGV[6], epoch)
end
if ours or (accepted and cools(lease)) then
  redis.call('DEL', KEYS[2])
elseif accepted and lease and #lease > 16 then
  redis.call('SET', KEYS[2], string.sub(lease, 1, 16), 'KEEPTTL')
end
return accepted and epoch
";

/// Arguments: the moment of the write, the epoch seen or 0, the channel, the message, the hard
/// limit in ms, the payload, the message of a removal.
const SET: &str = r"
local epoch, born = stored(), tonumber(ARGV[1])
local kind = later_than(born, tonumber(ARGV[2]), epoch)
if kind == 2 then return false end
if kind == 1 and time() - born > AT_ONCE then
  remove(ARGV[3], ARGV[7], later(epoch))
  return false
end
epoch = later(epoch)
store(ARGV[6], ARGV[5], epoch)
redis.call('DEL', KEYS[2])
notify(ARGV[3], ARGV[4], epoch)
return epoch
";

/// Arguments: the moment of the write, the epoch seen or 0, the channel, the message.
const INVALIDATE: &str = r"
local epoch = stored()
if later_than(tonumber(ARGV[1]), tonumber(ARGV[2]), epoch) == 2 then return false end
epoch = later(epoch)
remove(ARGV[3], ARGV[4], epoch)
return epoch
";

/// Arguments: the token, the lease in ms.
const RENEW: &str = r"
if not holds(redis.call('GET', KEYS[2]), ARGV[1]) then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
";

/// Arguments: the token, the cool-down in ms or 0, the channel, the message.
const RELEASE: &str = r"
local lease = redis.call('GET', KEYS[2])
if not holds(lease, ARGV[1]) then return 0 end
if tonumber(ARGV[2]) > 0 then
  local failed = failed_of(lease)
  if not named(failed, ARGV[1]) then failed = failed .. string.sub(ARGV[1], 1, 8) end
  redis.call('SET', KEYS[2], 'cooling;' .. failed, 'PX', ARGV[2])
else
  redis.call('DEL', KEYS[2])
end
notify(ARGV[3], ARGV[4], 0)
return 1
";

/// All scripts.
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) publish: Script,
    pub(super) set: Script,
    pub(super) invalidate: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
}

pub(super) struct Script {
    code: String,
    sha: String,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |body: &str| {
            let code = [PRELUDE, body].concat();
            let sha = redis::Script::new(&code).get_hash().to_owned();
            Script { code, sha }
        };
        Scripts {
            acquire: script(ACQUIRE),
            publish: script(PUBLISH),
            set: script(SET),
            invalidate: script(INVALIDATE),
            renew: script(RENEW),
            release: script(RELEASE),
        }
    }
}

/// The two keys on which a script works.
pub(super) struct Keys {
    pub(super) data: String,
    pub(super) lease: String,
}

impl Script {
    /// Runs the script by its hash, and sends its code only if the server does not know it: after a
    /// restart, a failover or `SCRIPT FLUSH`.
    pub(super) async fn run(
        &self,
        link: &Link,
        keys: &Keys,
        arguments: &[&[u8]],
    ) -> Result<Value, Failure> {
        let short = self.by_hash(keys, arguments);
        match link.send(&short).await? {
            Value::ServerError(error) if error.code() == "NOSCRIPT" => {
                let full = self.command("EVAL", &self.code, keys, arguments);
                match link.send(&full).await? {
                    Value::ServerError(error) => Err(classify::server(&error)),
                    value => Ok(value),
                }
            }
            Value::ServerError(error) => Err(classify::server(&error)),
            value => Ok(value),
        }
    }

    /// The command that runs the script by its hash.
    pub(super) fn by_hash(&self, keys: &Keys, arguments: &[&[u8]]) -> Cmd {
        self.command("EVALSHA", &self.sha, keys, arguments)
    }

    fn command(&self, name: &str, script: &str, keys: &Keys, arguments: &[&[u8]]) -> Cmd {
        let payload: usize = arguments.iter().map(|argument| argument.len()).sum();
        let size = script.len() + keys.data.len() + keys.lease.len() + payload + 16;
        let mut command = Cmd::with_capacity(arguments.len() + 5, size);
        command
            .arg(name)
            .arg(script)
            .arg(2)
            .arg(&keys.data)
            .arg(&keys.lease);
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}
