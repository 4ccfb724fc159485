//! What it costs to leave chats in another worker's mailbox and to take them out there: per push of 1 and of 64, with
//! the look at the receiver's step, without the wake-up's system call.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use linger_server::channel::{ChannelId, ChannelTable, SessionNo};
use linger_server::ids::UserId;
use linger_server::message::chat::{Body, Chat};
use linger_server::message::command::WorkerCommand;
use linger_server::worker::mailbox::{Mailbox, Wake};

const USER: UserId = UserId(1);

/// Wakes nobody.
struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("mailbox");
    let table = ChannelTable::new(1);
    let channel = table.open(0).expect("the table has a place");
    let session = table.begin_session(channel, USER).expect("a channel that was just opened is live");
    let mailbox = Mailbox::new(Box::new(Silent));
    for letters in [1, 64] {
        let (mut mail, mut refused, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        group.throughput(Throughput::Elements(letters as u64));
        group.bench_function(format!("push and take {letters}"), |bencher| {
            let body: Arc<[u8]> = (*b"{}").into();
            bencher.iter(|| {
                mail.extend((0..letters).map(|_| letter(channel, session, Arc::clone(&body))));
                mailbox.push(&table, &mut mail, &mut refused);
                mailbox.take(&mut taken);
                taken.drain(..).count()
            });
        });
        assert!(refused.is_empty(), "the receiver is live");
    }
    group.finish();
    criterion.final_summary();
}

fn letter(to: ChannelId, session: SessionNo, body: Arc<[u8]>) -> WorkerCommand {
    WorkerCommand::Chat {
        to,
        session,
        user: USER,
        origin: None,
        chat: Chat::accepted(Body::Object(body), None),
    }
}
