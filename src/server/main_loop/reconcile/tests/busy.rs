//! Logins, takeovers, kicks, ends and messages in orders that a seed decides, and nothing that differs.

use crate::channel::{ChannelId, Reason};
use crate::ids::UserId;
use crate::testing::fake_socket::Client;
use crate::testing::fixtures::policy;
use crate::testing::server_harness::{ServerHarness, chat, login};

/// A server on which things happen in an order that a seed decides.
struct Busy {
    server: ServerHarness,
    users: Vec<UserId>,
    clients: Vec<(ChannelId, Client)>,
    seed: u64,
}

impl Busy {
    fn new(seed: u64) -> Self {
        let mut server = ServerHarness::with(policy(), 2);
        let users = (0..6).map(|n| server.user(&format!("user{n}"))).collect();
        Busy { server, users, clients: Vec::new(), seed }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    fn pick_user(&mut self) -> UserId {
        let at = self.pick(self.users.len());
        self.users[at]
    }

    /// One thing happens, on the side of a client, an admin or the server.
    fn act(&mut self) {
        let what = self.pick(12);
        if what < 2 && self.clients.len() < 12 {
            let worker = self.pick(2);
            let (channel, client) = self.server.workers.accept_at(worker);
            self.clients.push((channel, client));
        }
        let (to, who) = (self.pick_user(), self.pick_user());
        let at = self.pick(self.clients.len().max(1));
        if let Some((channel, client)) = self.clients.get(at).cloned() {
            match what {
                2..5 => client.send(&login(who)),
                5..7 => client.send(&chat(to, "text")),
                7 => client.send(r#"{"msgid":3}"#),
                8 => client.end(),
                9 => client.reset(),
                10 => {
                    self.server.workers.kicker.kick(channel, Reason::Kicked);
                }
                11 => client.take_only(self.seed as usize % 400),
                _ => {}
            }
            if (8..11).contains(&what) {
                self.clients.remove(at);
            }
        }
    }

    /// One part of the server goes on, or time does.
    fn go_on(&mut self) {
        match self.pick(8) {
            0 | 1 => {
                self.server.main();
            }
            2 => self.server.workers.begin(),
            3 => {
                self.server.workers.poll();
            }
            4 => self.server.workers.finish(),
            5 => {
                self.server.verify();
            }
            6 => {
                self.server.workers.turn();
            }
            _ => {
                let ms = self.pick(300) as u64;
                self.server.workers.fixtures.clock.advance(ms * 1000);
            }
        }
    }
}

#[test]
fn a_busy_server_over_many_rounds_counts_nothing() {
    for seed in 1..=8 {
        let mut busy = Busy::new(seed);
        for _ in 0..4000 {
            busy.act();
            for _ in 0..3 {
                busy.go_on();
            }
        }
        busy.server.run();
        let metrics = &busy.server.workers.fixtures.metrics;
        assert_eq!(metrics.reconciled.value(), 0, "seed {seed}");
        assert!(metrics.reconcile_rounds.value() > 200, "{} rounds", metrics.reconcile_rounds.value());
        assert!(metrics.sessions_ended.value() > 100, "{} sessions", metrics.sessions_ended.value());
    }
}
