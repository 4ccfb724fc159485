//! Writes the server's own objects but the login answer, one JSON object each, without terminator.
//!
//! Plain functions, used by any thread: they append to a buffer and do nothing else. Keys come in the order of
//! the contract, because some old clients search for text instead of parsing.

pub use super::chat_object::{Delivered, To, chat_object, number, read_delivered};
use super::errno::Errno;
use super::json::object::ObjectWriter;
use super::msgid::Msgid;
use crate::channel::Reason;
use crate::ids::{Epoch, UserId};

/// msgid 5, granted.
pub fn registered(out: &mut Vec<u8>, id: UserId, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", Msgid::RegisterAnswer.number())
        .integer("errno", 0)
        .integer("id", id.0)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 2 or 5, not granted: the answer to a login, or to a registration. `seq` is raw JSON text.
pub fn refused(out: &mut Vec<u8>, re: Msgid, errno: Errno, errmsg: &str, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", re.login_answer().number())
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 0, what is wrong with a request. `re` is the request's msgid, `seq` its raw JSON text, where it had one.
pub fn error(out: &mut Vec<u8>, errno: Errno, errmsg: &str, re: Option<i64>, seq: Option<&str>) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", Msgid::Answer.number())
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq);
    if let Some(re) = re {
        object.integer("re", re);
    }
    object.finish();
}

/// msgid 0, a request with `seq` that succeeded. `id` is a new group's; `full` are the members whose box was full.
pub fn done(out: &mut Vec<u8>, re: Msgid, seq: &str, id: Option<i64>, full: &[UserId]) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", Msgid::Answer.number())
        .integer("errno", 0)
        .raw("seq", seq)
        .integer("re", re.number());
    if let Some(id) = id {
        object.integer("id", id);
    }
    if !full.is_empty() {
        object.array("full", full, |out, user| out.extend_from_slice(user.to_string().as_bytes()));
    }
    object.finish();
}

/// msgid 20, the last thing a client hears. `retry_after_ms` is in milliseconds.
pub fn goodbye(out: &mut Vec<u8>, reason: Reason, errmsg: &str, retry_after_ms: Option<u64>) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", Msgid::Goodbye.number())
        .text("reason", reason.word())
        .text("errmsg", errmsg)
        .text("advice", reason.advice().word());
    if let Some(retry_after_ms) = retry_after_ms {
        object.integer("retry_after_ms", retry_after_ms);
    }
    object.finish();
}

/// msgid 22.
pub fn ping(out: &mut Vec<u8>) {
    ObjectWriter::new(out).integer("msgid", Msgid::Ping.number()).finish();
}

/// msgid 23, the answer to a client's ping. `seq` is raw JSON text.
pub fn pong(out: &mut Vec<u8>, seq: Option<&str>) {
    ObjectWriter::new(out).integer("msgid", Msgid::Pong.number()).raw_if_some("seq", seq).finish();
}

/// msgid 21, a friend came or went.
pub fn presence(out: &mut Vec<u8>, id: UserId, name: &str, online: bool, epoch: Epoch) {
    ObjectWriter::new(out)
        .integer("msgid", Msgid::Presence.number())
        .integer("id", id.0)
        .text("name", name)
        .text("state", state(online))
        .integer("epoch", epoch.0)
        .finish();
}

pub(super) fn state(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_read_like_the_contract() {
        let registered = text(|out| registered(out, UserId(13), None));
        assert_eq!(registered, r#"{"msgid":5,"errno":0,"id":13}"#);
        let refused = text(|out| refused(out, Msgid::Login, Errno::Refused, "no", Some("\"s\"")));
        assert_eq!(refused, r#"{"msgid":2,"errno":1,"errmsg":"no","seq":"s"}"#);
        let wrong_id = text(|out| error(out, Errno::WrongId, "…", Some(6), None));
        assert_eq!(wrong_id, r#"{"msgid":0,"errno":12,"errmsg":"…","re":6}"#);
        let unknown = text(|out| error(out, Errno::Malformed, "…", None, None));
        assert_eq!(unknown, r#"{"msgid":0,"errno":10,"errmsg":"…"}"#);
        let stored = text(|out| done(out, Msgid::Chat, "7", None, &[]));
        assert_eq!(stored, r#"{"msgid":0,"errno":0,"seq":7,"re":6}"#);
        let created = text(|out| done(out, Msgid::CreateGroup, "7", Some(3), &[]));
        assert_eq!(created, r#"{"msgid":0,"errno":0,"seq":7,"re":8,"id":3}"#);
        let skipped = text(|out| done(out, Msgid::GroupChat, "7", None, &[UserId(1), UserId(2)]));
        assert_eq!(skipped, r#"{"msgid":0,"errno":0,"seq":7,"re":10,"full":[1,2]}"#);
        let kicked = text(|out| goodbye(out, Reason::Kicked, "spam", Some(600_000)));
        assert_eq!(
            kicked,
            r#"{"msgid":20,"reason":"kicked","errmsg":"spam","advice":"retry_after","retry_after_ms":600000}"#
        );
        let stopped = text(|out| goodbye(out, Reason::ServerShutdown, "bye", None));
        assert_eq!(stopped, r#"{"msgid":20,"reason":"server_shutdown","errmsg":"bye","advice":"reconnect"}"#);
        assert_eq!(text(ping), r#"{"msgid":22}"#);
        assert_eq!(text(|out| pong(out, None)), r#"{"msgid":23}"#);
        assert_eq!(text(|out| pong(out, Some("7"))), r#"{"msgid":23,"seq":7}"#);
        let came = text(|out| presence(out, UserId(5), "a\"b", true, Epoch(9)));
        assert_eq!(came, r#"{"msgid":21,"id":5,"name":"a\"b","state":"online","epoch":9}"#);
    }
}
