//! The tables of `linger.db`, and the steps from each version to the next. Plain text; runs in
//! [`super::open`] only.
//!
//! What is not there, and why:
//! - No `STRICT`: an SQLite before 3.37, as some systems still ship, could not read the database beside us.
//!   Checks stand where a wrong type would do harm; elsewhere reading is lenient.
//! - No foreign keys: SQLite enforces them per connection, so an outsider's delete would not heed them, and
//!   one of ours that failed would void a whole batch.
//! - No index on `state`: every login and logout would pay for a count that only tests ask for.
//! - No index on `departure.user`: ends are in the order of time, so each would write a page of its own there, for a
//!   question that an administrator asks now and then.
//!
//! `AUTOINCREMENT` stands where a number outlives its row: history, friends and boxes name users. Such a number is never
//! given out again. It costs a page of its own in every commit, so `departure`, which nothing names but a running main,
//! does without: the writer sees to it that no number comes twice in a run.

/// "LNGR" in the file's header: this database is Linger's.
pub const APPLICATION_ID: i32 = 0x4C4E_4752;

/// The schema that this program writes, and the newest that it reads.
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// Step `n` leads from version `n` to version `n + 1`. A step that has been released never changes.
pub(super) const MIGRATIONS: &[&str] =
    &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6, VERSION_7, VERSION_8];

/// Bans, each of one user or one block of addresses. Databases of version 1 from before there were bans lack it, so it
/// is created wherever it is missing.
pub(super) const BANS: &str = "
CREATE TABLE IF NOT EXISTS ban (
    id      INTEGER PRIMARY KEY,
    user    INTEGER UNIQUE,
    address TEXT UNIQUE,                            -- such as 10.0.0.7 or 10.0.0.0/8
    until   INTEGER NOT NULL CHECK (typeof(until) = 'integer'), -- Unix milliseconds
    reason  TEXT,                                   -- what the administrator said
    CHECK ((user IS NULL) <> (address IS NULL))
);
";

/// Confirmed messages, and chats with `seq` that are known again after a restart.
const VERSION_2: &str = "
-- 1 where the message was sent to a client that has not confirmed it.
ALTER TABLE box ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;

-- Chats with `seq` that were accepted in the last minutes. Rows are only added at the end and removed at the start: it
-- is read as a whole when the server starts, so it needs no index.
CREATE TABLE accepted (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,                   -- Unix milliseconds
    sender      INTEGER NOT NULL,
    fingerprint BLOB NOT NULL                       -- of seq, receiver and text
);
";

const VERSION_1: &str = "
-- Whoever may log in. Other programs insert (name, password) and leave the rest to the defaults.
CREATE TABLE user (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    password TEXT,                                  -- argon2id PHC string; NULL for a guest
    state    TEXT NOT NULL DEFAULT 'offline' CHECK (state IN ('online', 'offline')),
    epoch    INTEGER NOT NULL DEFAULT 0 CHECK (typeof(epoch) = 'integer')
);

-- One row for each `friend` that `user` added.
CREATE TABLE friend (
    user   INTEGER NOT NULL,
    friend INTEGER NOT NULL,
    PRIMARY KEY (user, friend)
) WITHOUT ROWID;

CREATE TABLE chatgroup (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT ''
);

CREATE TABLE member (
    groupid INTEGER NOT NULL,
    user    INTEGER NOT NULL,
    role    TEXT NOT NULL DEFAULT 'normal',         -- creator, normal
    PRIMARY KEY (groupid, user)
) WITHOUT ROWID;
CREATE INDEX member_by_user ON member (user);

-- Messages that wait for their receiver. Most are short, and a box is read and dropped as one range.
CREATE TABLE box (
    user INTEGER NOT NULL CHECK (typeof(user) = 'integer'),
    mid  INTEGER NOT NULL CHECK (typeof(mid) = 'integer'),
    at   INTEGER NOT NULL,                          -- Unix milliseconds
    body BLOB NOT NULL CHECK (typeof(body) IN ('blob', 'text')),
    PRIMARY KEY (user, mid)
) WITHOUT ROWID;

-- One row for each end of a session, in order.
CREATE TABLE departure (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,                    -- noticed, Unix milliseconds
    channel    TEXT,                                -- NULL after a crash
    user       INTEGER NOT NULL,
    name       TEXT NOT NULL,
    peer       TEXT,                                -- NULL after a crash
    reason     TEXT NOT NULL,
    initiator  TEXT NOT NULL,                       -- client, network, server, admin
    errno      INTEGER,                             -- of the system
    offline_us INTEGER,                             -- from noticed to committed
    closed_us  INTEGER,                             -- from noticed to fd closed
    delivered  INTEGER,                             -- these three: NULL until the account is settled
    saved      INTEGER,
    lost       INTEGER,
    since      INTEGER                              -- session began, Unix milliseconds; NULL after a crash
);
CREATE INDEX departure_by_user ON departure (user);
";

/// Tokens, each of one session. A random hash has no place in the order of the rows, so it is an index beside them.
const VERSION_3: &str = "
CREATE TABLE token (
    user     INTEGER NOT NULL CHECK (typeof(user) = 'integer'),
    epoch    INTEGER NOT NULL CHECK (typeof(epoch) = 'integer'), -- of the session when it was given
    hash     BLOB NOT NULL UNIQUE,                  -- of the token
    password BLOB NOT NULL,                         -- hash of user.password when it was given
    expires  INTEGER,                               -- Unix milliseconds; NULL while the session goes on
    PRIMARY KEY (user, epoch)
) WITHOUT ROWID;
CREATE INDEX token_by_expires ON token (expires) WHERE expires IS NOT NULL;
";

/// Short messages on their way to `box`, in the order in which they came: no index, so that a thousand for a thousand
/// users lie on few pages. `kept` shows every message once, wherever it lies.
const VERSION_4: &str = "
CREATE TABLE intake (
    id   INTEGER PRIMARY KEY,
    user INTEGER NOT NULL CHECK (typeof(user) = 'integer'),
    mid  INTEGER NOT NULL CHECK (typeof(mid) = 'integer'),
    at   INTEGER NOT NULL,                          -- Unix milliseconds
    body BLOB NOT NULL CHECK (typeof(body) IN ('blob', 'text')),
    sent INTEGER NOT NULL
);

-- One row. What has moved on to `box` already, and only waits to be removed: up to that row, of users up to that one.
CREATE TABLE settled (
    rows  INTEGER NOT NULL,
    users INTEGER NOT NULL
);
INSERT INTO settled VALUES (0, -9223372036854775808);

CREATE VIEW kept AS
    SELECT user, mid, at, body, sent FROM box
    UNION ALL
    SELECT i.user, i.mid, i.at, i.body, i.sent FROM intake AS i, settled AS s
        WHERE i.id > s.rows OR i.user > s.users;
";

/// The history without its index: `why` reads it from the newest row on.
const VERSION_5: &str = "
DROP INDEX IF EXISTS departure_by_user;
";

/// Accepted chats, many to a row: a row for each would cost a flood of them as much as the messages themselves.
const VERSION_6: &str = "
-- Chats with `seq` that were accepted in the same millisecond of the last minutes. Rows are only added at the end and
-- removed at the start: it is read as a whole when the server starts, so it needs no index.
CREATE TABLE acceptance (
    id    INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,                         -- Unix milliseconds
    chats BLOB NOT NULL                             -- 24 bytes each: sender, hash of seq, receiver and text
);
INSERT INTO acceptance
    SELECT id, at, CAST(unhex(printf('%016x', sender)) || fingerprint AS BLOB) FROM accepted
        WHERE typeof(sender) = 'integer' AND typeof(fingerprint) = 'blob' AND length(fingerprint) = 16;
DROP TABLE accepted;
";

/// The history without `AUTOINCREMENT`.
const VERSION_7: &str = "
CREATE TABLE departure_7 (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,                    -- noticed, Unix milliseconds
    channel    TEXT,                                -- NULL after a crash
    user       INTEGER NOT NULL,
    name       TEXT NOT NULL,
    peer       TEXT,                                -- NULL after a crash
    reason     TEXT NOT NULL,
    initiator  TEXT NOT NULL,                       -- client, network, server, admin
    errno      INTEGER,                             -- of the system
    offline_us INTEGER,                             -- from noticed to committed
    closed_us  INTEGER,                             -- from noticed to fd closed
    delivered  INTEGER,                             -- these three: NULL until the account is settled
    saved      INTEGER,
    lost       INTEGER,
    since      INTEGER                              -- session began, Unix milliseconds; NULL after a crash
);
INSERT INTO departure_7 SELECT id, at, channel, user, name, peer, reason, initiator, errno, offline_us, closed_us,
    delivered, saved, lost, since FROM departure;
DROP TABLE departure;
-- Without it, somebody else's view that has lost its table would keep ours from being renamed.
PRAGMA legacy_alter_table = ON;
ALTER TABLE departure_7 RENAME TO departure;
PRAGMA legacy_alter_table = OFF;
";

/// Ages by a clock that nobody sets; epochs whose message numbers have 14 bits for the place instead of 28: those that go on
/// are above all that were given; and what names look like, so that no new one can be mistaken for another. That is filled when
/// the server starts, and no constraint: users who exist keep their names.
const VERSION_8: &str = "
-- One row: what time it was a minute ago at most, on the clock by which ages are judged and on the wall clock. What is
-- called Unix milliseconds elsewhere, but in `departure`, is of the former.
CREATE TABLE IF NOT EXISTS clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    trusted INTEGER NOT NULL,                       -- milliseconds
    wall    INTEGER NOT NULL                        -- Unix milliseconds
);
-- `at` is what the wall clock said; NULL where only that is known.
ALTER TABLE departure ADD COLUMN trusted INTEGER;
UPDATE user SET epoch = CASE WHEN epoch BETWEEN 0 AND 33030143 THEN (epoch + 1) * 16384 ELSE 0 END;

ALTER TABLE user ADD COLUMN skeleton TEXT;          -- of the name with folded case; NULL until the server has looked
ALTER TABLE user ADD COLUMN cased_skeleton TEXT;    -- of the name as it is, where that is another one
CREATE INDEX user_by_skeleton ON user (skeleton);
CREATE INDEX user_by_cased_skeleton ON user (cased_skeleton) WHERE cased_skeleton IS NOT NULL;
CREATE TRIGGER user_renamed AFTER UPDATE OF name ON user WHEN new.name IS NOT old.name BEGIN
    UPDATE user SET skeleton = NULL, cased_skeleton = NULL WHERE id = new.id;
END;

-- Whom chats with `seq` have reached that others of their receivers wait for: a row for each transaction with copies of
-- such a chat. They go when the chat is accepted, and else with the acceptances of their time.
CREATE TABLE reached (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,                   -- Unix milliseconds
    sender      INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,                      -- of seq, receiver and text, as in `acceptance`
    users       BLOB NOT NULL                       -- 8 bytes each, big-endian
);
CREATE INDEX reached_by_chat ON reached (sender, fingerprint);

-- One body for many receivers. Numbered in one row with `intake`, and moving on with it.
CREATE TABLE message (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,                     -- Unix milliseconds
    receivers TEXT NOT NULL,                        -- [[user, mid, sent], ...]; [] once all have moved on to `box`
    body      BLOB NOT NULL
);

-- What of those lists holds no longer: copies up to `dropped` are gone, copies up to `sent` were sent.
CREATE TABLE copy_mark (
    user    INTEGER PRIMARY KEY,
    dropped INTEGER NOT NULL DEFAULT (-9223372036854775808),
    sent    INTEGER NOT NULL DEFAULT (-9223372036854775808)
);

-- Whose body is in `message`; `body` is empty then.
ALTER TABLE box ADD COLUMN message INTEGER;
CREATE INDEX box_by_message ON box (message) WHERE message IS NOT NULL;

DROP VIEW IF EXISTS kept;
CREATE VIEW kept AS
    SELECT b.user, b.mid, b.at, coalesce(m.body, b.body) AS body, b.sent
        FROM box AS b LEFT JOIN message AS m ON m.id = b.message
    UNION ALL
    SELECT i.user, i.mid, i.at, i.body, i.sent FROM intake AS i, settled AS s
        WHERE i.id > s.rows OR i.user > s.users
    UNION ALL
    SELECT c.user, c.mid, c.at, c.body, c.sent OR c.mid <= coalesce(k.sent, c.mid - 1)
        FROM (SELECT m.id, m.at, m.body, json_extract(r.value, '$[0]') AS user,
                json_extract(r.value, '$[1]') AS mid, json_extract(r.value, '$[2]') AS sent
            FROM message AS m, json_each(m.receivers) AS r) AS c
        CROSS JOIN settled AS s LEFT JOIN copy_mark AS k ON k.user = c.user
        WHERE (c.id > s.rows OR c.user > s.users) AND c.mid > coalesce(k.dropped, c.mid - 1);
";
