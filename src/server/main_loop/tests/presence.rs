//! What friends are told when a user comes or goes, and when.

use crate::channel::{ChannelId, Reason};
use crate::ids::UserId;
use crate::main_loop::context::Policy;
use crate::main_loop::transaction::LATER_US;
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::protocol::msgid::Msgid;
use crate::store::{FriendsGroups, Transactions};
use crate::testing::builders::{Summary, login, reply_to};
use crate::testing::fixtures::{CAPACITY, PRESENCE_DELAY_US, policy};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};

/// What a channel was told of whom: online or not, and in which session.
type OnFailure = (ChannelId, UserId, bool, i64);

impl MainHarness {
    fn befriend(&mut self, user: UserId, friend: UserId) {
        let mut store = self.disk.beside();
        store.begin().unwrap();
        store.add_friend(user, friend).unwrap();
        store.commit().unwrap();
    }

    /// A login of a client with the cap, not yet committed.
    fn log_in_watching(&mut self, user: UserId) -> ChannelId {
        let channel = self.connect();
        let Ask::Login(mut login) = login(user, channel) else { unreachable!("it is a login") };
        login.caps.presence = true;
        self.ask(Ask::Login(login));
        channel
    }

    fn watching(&mut self, user: UserId) -> Online {
        let channel = self.log_in_watching(user);
        self.finish();
        self.heard(channel);
        Online { user, channel, session: self.session(channel).expect("the login is granted") }
    }

    /// A user who watches a friend; the friend is offline.
    fn watcher_of(&mut self, name: &str, friend: UserId) -> Online {
        let user = self.user(name);
        self.befriend(user, friend);
        self.watching(user)
    }

    /// Takes what watchers were told since the last look.
    fn told(&self) -> Vec<OnFailure> {
        self.main.presence.check_invariants();
        let event = |notice: crate::message::presence::Notice| {
            (notice.to, notice.event.user, notice.event.online, notice.event.epoch.0)
        };
        self.mailboxes.notices().into_iter().map(event).collect()
    }

    /// The user's session ends, settled and committed.
    fn leave(&mut self, who: Online, reason: Reason) {
        self.send_away(who, reason);
        self.settle(who, vec![]);
        self.finish_all();
    }
}

fn without_delay() -> MainHarness {
    MainHarness::with(Policy { presence_delay_us: 0, ..policy() }, CAPACITY, Disk::default())
}

#[test]
fn a_friend_who_comes_is_told_once_the_login_is_committed_and_never_before() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let channel = harness.connect();
    harness.log_in(bob, channel);
    assert_eq!(harness.told(), []);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    assert_eq!(harness.told(), [], "the session never was");
    harness.enter(bob);
    assert_eq!(harness.told(), [(ann.channel, bob, true, 1)]);
}

#[test]
fn an_end_is_told_when_nobody_is_back_after_the_delay_whatever_its_reason() {
    for reason in [Reason::PeerReset, Reason::PeerClosed, Reason::Kicked] {
        let mut harness = MainHarness::new();
        let bob = harness.user("bob");
        let ann = harness.watcher_of("ann", bob);
        let online = harness.enter(bob);
        assert_eq!(harness.told(), [(ann.channel, bob, true, 1)]);
        harness.leave(online, reason);
        harness.pass_us(PRESENCE_DELAY_US - 1);
        assert_eq!(harness.told(), []);
        assert_eq!(harness.main.timeout_us(), Some(1), "main wakes for it");
        harness.pass_us(1);
        assert_eq!(harness.told(), [(ann.channel, bob, false, 1)], "{reason:?}");
        harness.pass_us(PRESENCE_DELAY_US);
        assert_eq!(harness.told(), []);
    }
}

#[test]
fn a_logout_is_held_back_like_any_other_end() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.log_out(online);
    harness.settle(online, vec![]);
    harness.finish_all();
    assert_eq!(harness.told(), []);
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn an_end_is_never_told_before_it_is_committed() {
    let mut harness = without_delay();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.disk.set_full(true);
    harness.leave(online, Reason::PeerClosed);
    harness.pass_us(PRESENCE_DELAY_US);
    assert!(harness.is_online(bob));
    assert_eq!(harness.told(), []);
    harness.disk.set_full(false);
    harness.pass_us(1);
    assert!(!harness.is_online(bob));
    assert_eq!(harness.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn whoever_is_back_in_time_was_never_away_but_for_those_who_logged_in_meanwhile() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.leave(online, Reason::PeerReset);
    harness.pass_us(PRESENCE_DELAY_US / 2);
    // Her login answer says that he is offline.
    let eve = harness.watcher_of("eve", bob);
    harness.enter(bob);
    assert_eq!(harness.told(), [(eve.channel, bob, true, 2)]);
    assert_eq!(harness.fixtures.metrics.presence_spared.value(), 1);
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), [], "the delay of the session before means nothing any more");
}

#[test]
fn whoever_logs_in_during_the_delay_is_not_told_again_that_the_friend_is_offline() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.leave(online, Reason::PeerReset);
    harness.watcher_of("eve", bob);
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn a_login_that_fails_does_not_count_as_being_back() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.leave(online, Reason::PeerReset);
    let channel = harness.connect();
    harness.log_in(bob, channel);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn a_takeover_shows_nothing_even_without_a_delay() {
    let mut harness = without_delay();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let old = harness.enter(bob);
    harness.told();
    let channel = harness.connect();
    harness.log_in(bob, channel);
    harness.finish_all();
    assert!(harness.heard(old.channel).contains(&Summary::Leave(Reason::Replaced)));
    assert!(harness.session(channel).is_none(), "it waits for the report");
    assert_eq!(harness.told(), []);
    harness.settle(old, vec![]);
    harness.finish_all();
    let new = Online { user: bob, channel, session: harness.session(channel).expect("it has taken over") };
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), []);
    harness.leave(new, Reason::PeerClosed);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 2)], "the epoch is that of the session that ended");
}

#[test]
fn an_end_names_the_epoch_in_which_the_session_went_on() {
    let mut harness = MainHarness::new();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    let online = harness.enter(bob);
    harness.told();
    harness.main.users.find(bob).unwrap().go_on_in_next_epoch(0);
    harness.leave(online, Reason::PeerClosed);
    harness.pass_us(PRESENCE_DELAY_US);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 2)]);
}

#[test]
fn logins_and_ends_in_one_batch_leave_watchers_with_what_is_true_after_it() {
    let mut harness = without_delay();
    let [bob, carl, dora] = ["bob", "carl", "dora"].map(|name| harness.user(name));
    let ann = harness.user("ann");
    for friend in [bob, carl, dora] {
        harness.befriend(ann, friend);
    }
    let dora = harness.enter(dora);
    // Bob comes before her, Carl after her and goes again, Dora goes after her.
    let channel = harness.connect();
    harness.log_in(bob, channel);
    let watching = harness.log_in_watching(ann);
    let channel = harness.connect();
    harness.log_in(carl, channel);
    let session = harness.session(channel).expect("granted, though not committed");
    harness.send_away(Online { user: carl, channel, session }, Reason::PeerClosed);
    harness.send_away(dora, Reason::PeerClosed);
    harness.finish_all();
    assert_eq!(harness.told(), [(watching, dora.user, false, 1)]);
}

#[test]
fn a_friend_added_during_the_session_is_watched_once_that_is_committed() {
    let mut harness = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| harness.user(name));
    let ann = harness.watching(ann);
    let online = harness.enter(bob);
    let add = |harness: &mut MainHarness| {
        harness.ask(Ask::AddFriend {
            reply_to: reply_to(ann.channel, Msgid::AddFriend, None),
            user: ann.user,
            friend: bob,
        });
    };
    add(&mut harness);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    harness.leave(online, Reason::PeerClosed);
    assert_eq!(harness.told(), [], "he was not added");
    let online = harness.enter(bob);
    assert_eq!(harness.told(), []);
    add(&mut harness);
    add(&mut harness);
    harness.finish_all();
    assert_eq!(harness.told(), [], "adding somebody is not his coming");
    harness.leave(online, Reason::PeerClosed);
    assert_eq!(harness.told(), [(ann.channel, bob, false, 2)]);
    harness.enter(bob);
    assert_eq!(harness.told(), [(ann.channel, bob, true, 3)]);
}

#[test]
fn a_friend_who_comes_in_the_batch_in_which_he_is_added_is_told() {
    let mut harness = MainHarness::new();
    let [ann, bob] = ["ann", "bob"].map(|name| harness.user(name));
    let ann = harness.watching(ann);
    harness.ask(Ask::AddFriend {
        reply_to: reply_to(ann.channel, Msgid::AddFriend, None),
        user: ann.user,
        friend: bob,
    });
    harness.enter(bob);
    assert_eq!(harness.told(), [(ann.channel, bob, true, 1)]);
}

#[test]
fn a_friend_who_goes_in_the_batch_in_which_he_is_added_is_told() {
    let mut harness = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| harness.user(name));
    let (ann, bob) = (harness.watching(ann), harness.enter(bob));
    harness.ask(Ask::AddFriend {
        reply_to: reply_to(ann.channel, Msgid::AddFriend, None),
        user: ann.user,
        friend: bob.user,
    });
    harness.leave(bob, Reason::PeerClosed);
    assert_eq!(harness.told(), [(ann.channel, bob.user, false, 1)]);
}

#[test]
fn only_sessions_with_the_cap_are_told_and_nobody_of_himself() {
    let mut harness = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| harness.user(name));
    harness.befriend(ann, bob);
    harness.befriend(bob, bob);
    let plain = harness.enter(ann);
    harness.ask(Ask::AddFriend {
        reply_to: reply_to(plain.channel, Msgid::AddFriend, None),
        user: ann,
        friend: bob,
    });
    let online = harness.watching(bob);
    harness.leave(online, Reason::PeerClosed);
    assert_eq!(harness.told(), []);
}

#[test]
fn nothing_is_told_to_a_session_that_is_over_and_the_next_one_is_told_on_its_own_channel() {
    let mut harness = without_delay();
    let bob = harness.user("bob");
    let ann = harness.watcher_of("ann", bob);
    harness.leave(ann, Reason::PeerClosed);
    let online = harness.enter(bob);
    assert_eq!(harness.told(), []);
    // A login that is undone watches nobody either.
    let undone = harness.log_in_watching(ann.user);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    harness.leave(online, Reason::PeerClosed);
    assert_eq!(harness.told(), []);
    assert!(harness.session(undone).is_none());
    let again = harness.watching(ann.user);
    harness.enter(bob);
    assert_eq!(harness.told(), [(again.channel, bob, true, 2)]);
}

#[test]
fn a_stop_tells_nobody_that_others_go_and_does_not_wait_for_a_delay() {
    for delay_us in [0, PRESENCE_DELAY_US] {
        let mut harness =
            MainHarness::with(Policy { presence_delay_us: delay_us, ..policy() }, CAPACITY, Disk::default());
        let [bob, carl] = ["bob", "carl"].map(|name| harness.user(name));
        let ann = harness.user("ann");
        harness.befriend(ann, bob);
        harness.befriend(ann, carl);
        let (bob, carl) = (harness.enter(bob), harness.enter(carl));
        let ann = harness.watching(ann);
        harness.send_away(carl, Reason::PeerClosed);
        harness.take(Event::Stop);
        harness.take(Event::Quiet);
        harness.finish_all();
        for gone in [ann, bob, carl] {
            harness.settle(gone, vec![]);
            harness.fixtures.table.note_gone();
        }
        harness.finish_all();
        assert_eq!(harness.told(), []);
        for channel in harness.fixtures.table.occupants().collect::<Vec<_>>() {
            harness.take(Event::HandBack { channel, socket: None, partial: None });
        }
        harness.finish_all();
        assert_eq!(harness.told(), []);
        assert!(!harness.main.is_finished(), "the history has to be completed");
        harness.pass_us(LATER_US);
        assert!(harness.main.is_finished());
    }
}
