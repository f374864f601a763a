//! One run: what the seed decides to happen, and the loop that makes it happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use everfresh::testing::seed_random;

use crate::faults::Fault;
use crate::flood;
use crate::log::What;
use crate::node::{Node, Settings, Trouble};
use crate::origin::{UNSTORABLE, number};
use crate::random::Random;
use crate::report::Report;
use crate::script::{Event, LAST_KEY, Script};
use crate::server::{Server, name};
use crate::tasks::Tasks;
use crate::world::{Key, Life, MS, Nanos, Process, SECOND, World};

/// The longest step of the time. The clocks of the processes ring their alarms after each step.
const STEP: Nanos = 8 * MS;

/// Of so many seeds, one floods the outbox of a process.
const FLOODS: u64 = 200;

/// Of so many seeds, one has all keys in a group, which callers invalidate.
const GROUPS: u64 = 10;

/// Runs the fleet of one seed.
pub fn run(seed: u64, fault: Option<Fault>) -> Report {
    seed_random(seed);
    let mut run = Run::new(seed, fault);
    match seed % FLOODS {
        77 => flood::run(&mut run),
        _ => run.all(),
    }
    run.report(seed)
}

pub struct Run {
    pub world: Arc<World>,
    pub server: Server,
    pub nodes: BTreeMap<Process, Node>,
    pub tasks: Tasks,
    pub random: Random,
    /// Decides the order of tasks that are ready at once.
    order: Random,
    pub script: Script,
    fault: Option<Fault>,
    has_groups: bool,
}

impl Run {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed);
        let [network, order] = [(); 2].map(|()| Random::new(random.next()));
        let mut script = Script::new(&mut random);
        let has_groups = seed % GROUPS == 3;
        if has_groups {
            script.writes = script.writes.max(10);
        }
        let world = World::new(network);
        world.with(|state| {
            let names = (0..=UNSTORABLE).map(|key| (name(key).hash(), key));
            state.claims.names = names.collect();
            state.claims.has_groups = has_groups;
        });
        Run {
            server: Server::new(script.databases, fault),
            world,
            nodes: BTreeMap::new(),
            tasks: Tasks::new(),
            random,
            order,
            script,
            fault,
            has_groups,
        }
    }

    pub fn start(&mut self, database: usize, schema: u32, is_cut_off: bool) -> Process {
        let settings = Settings {
            database,
            schema,
            fault: self.fault,
            is_cut_off,
            has_groups: self.has_groups,
        };
        let node = Node::start(&self.world, &self.server, &settings, &mut self.random);
        let process = node.process;
        self.nodes.insert(process, node);
        process
    }

    fn all(&mut self) {
        for (database, schema) in self.script.processes.clone() {
            self.start(database, schema, false);
        }
        while let Some((at, event)) = self.script.next() {
            self.go_until(at);
            if self.has_failed() {
                return;
            }
            self.happen(event);
        }
        self.heal();
        for _ in 0..15 {
            let at = self.world.now() + self.random.between(20 * MS, 160 * MS);
            self.go_until(at);
            self.operate(false);
        }
        self.go_until(self.world.now() + 4 * SECOND);
        self.check_the_end();
    }

    pub fn has_failed(&self) -> bool {
        self.world.with(|state| state.claims.violation.is_some())
    }

    /// Lets the time pass, and does all that is due.
    pub fn go_until(&mut self, end: Nanos) {
        loop {
            self.tasks.run(&self.world, &mut self.order);
            let now = self.world.now();
            if now >= end || self.has_failed() {
                return;
            }
            let timer = self.world.next_timer();
            let arrival = self.world.with(|state| state.next_arrival());
            let next = [timer, arrival].into_iter().flatten().min();
            let next = next.unwrap_or(end).clamp(now, end.min(now + STEP));
            for node in self.nodes.values() {
                node.advance(next - now);
            }
            self.server
                .clock
                .advance(std::time::Duration::from_nanos(next - now));
            self.world.advance(next);
            while let Some(arrival) = self.world.with(|state| state.take_arrival()) {
                let process = arrival.process;
                let database = self
                    .world
                    .with(|state| state.claims.processes[process].database);
                self.server.serve(&self.world, database, arrival);
            }
        }
    }

    /// A process that runs, and one with no trouble if wanted.
    fn pick(&mut self, is_untroubled: bool) -> Option<Process> {
        let fits = |node: &&Node| !is_untroubled || node.trouble == Trouble::None;
        let nodes: Vec<_> = self.nodes.values().filter(fits).collect();
        match nodes.len() {
            0 => None,
            len => Some(nodes[self.random.index(len)].process),
        }
    }

    fn pick_key(&mut self) -> Key {
        self.script.keys[self.random.index(self.script.keys.len())]
    }

    /// A caller reads or writes.
    fn operate(&mut self, may_write: bool) {
        let key = self.pick_key();
        if self.random.percent(6) {
            return self.happen(Event::Crowd(key));
        }
        let Some(process) = self.pick(false) else {
            return;
        };
        let writes = may_write && self.random.percent(self.script.writes);
        let is_set = self.random.percent(55);
        match writes {
            true if self.has_groups && !is_set => self.nodes[&process].invalidate_group(),
            true => self.nodes[&process].write(key, is_set),
            false => self.nodes[&process].read(key),
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.world.now();
        match event {
            Event::Operation => self.operate(true),
            Event::Refuse(length) => {
                if let Some(process) = self.pick(true) {
                    self.refuse(process, now + length);
                }
            }
            Event::Silence(length, refused) => {
                if let Some(process) = self.pick(true) {
                    self.set_trouble(process, Trouble::Silent);
                    self.world.with(|state| {
                        state.trouble_begins(process, false);
                        state.network.links[process].is_silent = true;
                        state.log(What::Silent(process));
                    });
                    self.script
                        .at(now + length, Event::Notice(process, refused));
                }
            }
            Event::Notice(process, refused) => {
                if self.nodes.contains_key(&process) {
                    self.world.with(|state| state.trouble_ends(process));
                    self.refuse(process, now + refused);
                }
            }
            Event::Connect(process) => self.connect(process),
            Event::Slow(length) => {
                if let Some(process) = self.pick(true) {
                    self.set_trouble(process, Trouble::Slow);
                    self.slow(process, true);
                    self.script.at(now + length, Event::Fast(process));
                }
            }
            Event::Fast(process) => self.end_trouble(process, Trouble::Slow),
            Event::Pause(length) => {
                if let Some(process) = self.pick(true) {
                    self.set_trouble(process, Trouble::Paused);
                    self.world.with(|state| {
                        state.lives[process] = Life::Paused;
                        state.pause_begins(process);
                        state.log(What::Paused(process));
                    });
                    self.script.at(now + length, Event::Resume(process));
                }
            }
            Event::Resume(process) => self.end_trouble(process, Trouble::Paused),
            Event::Kill(after) => {
                if self.nodes.len() > 1
                    && let Some(process) = self.pick(false)
                {
                    self.kill(process, now + after);
                }
            }
            Event::Start(database, schema) => {
                self.start(database, schema, false);
            }
            Event::LoseLease => self.lose(true),
            Event::LoseData => self.lose(false),
            Event::Empty => self.empty(),
            Event::Fail(length) => {
                if let Some(process) = self.pick(false) {
                    self.fail(process, true);
                    self.script.at(now + length, Event::Work(process));
                }
            }
            Event::Work(process) => self.fail(process, false),
            Event::Absent(length) => {
                // Of a key that no process has, the crowd has to wait for the answer.
                let key = match self.random.percent(50) {
                    true => self.random.between(LAST_KEY + 1, UNSTORABLE - 1),
                    false => self.pick_key(),
                };
                self.absent(key, true);
                let soon = now + self.random.between(0, length / 2);
                self.script.at(soon, Event::Crowd(key));
                self.script.at(now + length, Event::Present(key));
            }
            Event::Present(key) => self.absent(key, false),
            Event::Look => self.look_for_lost(),
            Event::Crowd(key) => {
                for node in self.nodes.values() {
                    node.read(key);
                }
            }
        }
    }

    fn set_trouble(&mut self, process: Process, trouble: Trouble) {
        if let Some(node) = self.nodes.get_mut(&process) {
            node.trouble = trouble;
        }
    }

    pub fn refuse(&mut self, process: Process, until: Nanos) {
        let Some(node) = self.nodes.get_mut(&process) else {
            return;
        };
        node.trouble = Trouble::Refused;
        node.chaos.disconnect();
        self.world.with(|state| {
            state.trouble_begins(process, true);
            state.break_connection(process);
        });
        self.script.at(until, Event::Connect(process));
    }

    pub fn connect(&mut self, process: Process) {
        let Some(node) = self.nodes.get_mut(&process) else {
            return;
        };
        if node.trouble != Trouble::Refused {
            return;
        }
        node.trouble = Trouble::None;
        let has_lost = std::mem::take(&mut node.has_lost);
        self.world.with(|state| {
            state.connect(process);
            state.trouble_ends(process);
            state.gap(process, has_lost);
        });
        node.chaos.reconnect();
    }

    fn slow(&mut self, process: Process, is_slow: bool) {
        self.world.with(|state| {
            state.network.links[process].is_slow = is_slow;
            match is_slow {
                true => state.trouble_begins(process, false),
                false => state.trouble_ends(process),
            }
            state.log(What::Slow(process, is_slow));
        });
    }

    fn end_trouble(&mut self, process: Process, trouble: Trouble) {
        let Some(node) = self.nodes.get_mut(&process) else {
            return;
        };
        if node.trouble != trouble {
            return;
        }
        node.trouble = Trouble::None;
        node.was_slow = Some(self.world.now());
        match trouble {
            Trouble::Slow => self.slow(process, false),
            Trouble::Paused => {
                self.world.with(|state| {
                    state.lives[process] = Life::Runs;
                    state.pause_ends(process);
                    state.log(What::Resumed(process));
                });
                self.tasks.resume();
            }
            Trouble::None | Trouble::Refused | Trouble::Silent => {}
        }
    }

    fn kill(&mut self, process: Process, again: Nanos) {
        let Some(node) = self.nodes.remove(&process) else {
            return;
        };
        self.world.with(|state| {
            state.lives[process] = Life::Dead;
            state.log(What::Killed(process));
            state.process_dies(process);
            state.break_connection(process);
        });
        self.script
            .at(again, Event::Start(node.database, node.schema));
        node.die(&mut self.tasks);
    }

    fn lose(&mut self, is_lease: bool) {
        let key = self.pick_key();
        let database = self.random.index(self.server.databases.len());
        let store = &self.server.databases[database];
        match is_lease {
            true => store.lose_lease(&name(key)),
            false => store.lose_data(&name(key)),
        }
        self.world.with(|state| {
            state.server_fault();
            match is_lease {
                true => state.log(What::LeaseLost(database, key)),
                false => {
                    state.data_lost(database, key);
                    state.log(What::DataLost(database, key));
                }
            }
        });
    }

    /// The server comes back without data.
    fn empty(&mut self) {
        let fits = |node: &Node| matches!(node.trouble, Trouble::None | Trouble::Refused);
        if !self.nodes.values().all(fits) {
            return;
        }
        for process in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&process].trouble == Trouble::None {
                let until = self.world.now() + self.random.between(50 * MS, SECOND);
                self.refuse(process, until);
            }
        }
        self.script
            .at(self.world.now() + 13 * SECOND / 10, Event::Look);
        self.server.empty();
        self.world.with(|state| {
            state.emptied();
            state.log(What::Emptied);
        });
        for node in self.nodes.values_mut() {
            node.has_lost = true;
            if self.fault != Some(Fault::LostDataGoesUnnoticed) {
                node.chaos.begin_history();
            }
        }
    }

    /// A while after the server came back without data.
    fn look_for_lost(&self) {
        for node in self.nodes.values() {
            for key in &self.script.keys {
                let found = node.cache.peek(key);
                let found = found.filter(|found| found.freshness().is_fresh());
                let is_stored = self.server.stored(node.database, &name(*key)).is_some();
                if let (Some(found), false) = (found, is_stored) {
                    let value = number(&found);
                    self.world
                        .with(|state| state.fresh_but_lost(node.process, *key, value));
                }
            }
        }
    }

    fn fail(&mut self, process: Process, fails: bool) {
        self.world.with(|state| {
            let failing = &mut state.origin.failing;
            if failing.contains(&process) == fails {
                return;
            }
            match fails {
                true => failing.push(process),
                false => failing.retain(|other| *other != process),
            }
            state.failing(process, fails);
            state.log(What::Failing(process, fails));
        });
    }

    fn absent(&mut self, key: Key, is_absent: bool) {
        self.world.with(|state| {
            let absent = &mut state.origin.absent;
            if absent.contains(&key) == is_absent {
                return;
            }
            match is_absent {
                true => absent.push(key),
                false => absent.retain(|other| *other != key),
            }
            state.log(What::Absent(key, is_absent));
        });
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.world.with(|state| state.log(What::Healed));
        for process in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&process].trouble == Trouble::Silent {
                self.happen(Event::Notice(process, 0));
            }
            self.connect(process);
            self.end_trouble(process, Trouble::Slow);
            self.end_trouble(process, Trouble::Paused);
            self.fail(process, false);
        }
        for key in 0..=UNSTORABLE {
            self.absent(key, false);
        }
    }

    fn report(mut self, seed: u64) -> Report {
        let report = self.world.with(|state| Report {
            seed,
            violation: state.claims.violation.clone(),
            events: std::mem::take(&mut state.log).events,
            databases: (state.claims.processes.iter())
                .map(|facts| facts.database)
                .collect(),
        });
        for (process, node) in std::mem::take(&mut self.nodes) {
            self.world.with(|state| state.lives[process] = Life::Dead);
            node.die(&mut self.tasks);
        }
        report
    }
}
