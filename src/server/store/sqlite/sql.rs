//! Every statement of the running server. All are prepared when a store opens: a table that is not as it should
//! be shows at the start, and no batch pays for preparing.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sql {
    /// Its place in [`ALL`].
    pub(super) place: usize,
    pub(super) text: &'static str,
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident $sql:literal;)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "they count the constants of these names")]
        enum Place { $($name,)* }
        $($(#[$doc])* pub(super) const $name: Sql = Sql { place: Place::$name as usize, text: $sql };)*
        /// All of the above, by place.
        pub(super) const ALL: &[Sql] = &[$($name,)*];
    };
}

statements! {
    BEGIN "BEGIN IMMEDIATE";
    COMMIT "COMMIT";
    ROLLBACK "ROLLBACK";
    MARK_TIME "INSERT OR REPLACE INTO clock (id, trusted, wall) VALUES (1, ?1, ?2)";

    USER_BY_ID "SELECT id, name, password, state, epoch FROM user WHERE id = ?1";
    USER_BY_NAME "SELECT id, name, password, state, epoch FROM user WHERE name = ?1";
    /// Whoever has a name that looks so keeps the new one out. SQLite has no number above the largest integer: where another
    /// process has given that away, the next one counts from the numbers that JSON readers count exactly. Refusing it would
    /// undo the transaction.
    ADD_USER "INSERT INTO user (id, name, password, skeleton, cased_skeleton) SELECT
        CASE WHEN (SELECT seq FROM sqlite_sequence WHERE name = 'user') = 9223372036854775807
            THEN (SELECT coalesce(max(id), 0) + 1 FROM user WHERE id < 9007199254740991) END,
        ?1, ?2, ?3, ?4
        WHERE NOT EXISTS (SELECT 1 FROM user WHERE skeleton IN (?3, ?4))
            AND NOT EXISTS (SELECT 1 FROM user WHERE cased_skeleton IN (?3, ?4))
        ON CONFLICT (name) DO NOTHING";
    /// Users whom others have added or renamed.
    WITHOUT_SKELETON "SELECT id, name FROM user WHERE skeleton IS NULL LIMIT ?1";
    SET_SKELETON "UPDATE user SET skeleton = ?2, cased_skeleton = ?3 WHERE id = ?1";
    RENEW_PASSWORD "UPDATE user SET password = ?3 WHERE id = ?1 AND password = ?2";
    SET_ONLINE "UPDATE user SET state = 'online', epoch = ?2 WHERE id = ?1";
    /// Leaves a row alone that is offline already: no page gets dirty.
    SET_OFFLINE "UPDATE user SET state = 'offline' WHERE id = ?1 AND epoch = ?2 AND state = 'online'";
    USER_MARKS "SELECT id, state, epoch FROM user WHERE id > ?1 ORDER BY id LIMIT ?2";
    /// What is not below ?3 is believed by nobody.
    SET_EPOCH "UPDATE user SET epoch = ?2 WHERE id = ?1 AND (epoch < ?2 OR epoch >= ?3)";

    ADD_DEPARTURE "INSERT INTO departure (at, channel, user, name, peer, reason, initiator, errno, since, trusted)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    RENUMBER_DEPARTURE "UPDATE departure SET id = ?2 WHERE id = ?1";
    COMPLETE_DEPARTURES "UPDATE departure SET offline_us = coalesce(?3, offline_us),
        closed_us = coalesce(?4, closed_us), delivered = ?5, saved = ?6, lost = ?7 WHERE id BETWEEN ?1 AND ?2";
    /// By number instead of by a count, which would read the whole table: only others leave gaps.
    EXPIRE_OLDEST "DELETE FROM departure WHERE id IN (SELECT id FROM departure
        WHERE id <= (SELECT max(id) FROM departure) - ?2 ORDER BY id LIMIT ?1)";
    /// Looks at the oldest rows only: there is no index on `at`, and numbers rise with time.
    EXPIRE_BEFORE "DELETE FROM departure
        WHERE id IN (SELECT id FROM departure ORDER BY id LIMIT ?1) AND coalesce(trusted, at) < ?2";

    PUT_BAN "INSERT OR REPLACE INTO ban (user, address, until, reason) VALUES (?1, ?2, ?3, ?4)";
    DROP_BAN "DELETE FROM ban WHERE user = ?1 OR address = ?2";
    EXPIRE_BANS "DELETE FROM ban WHERE until <= ?1";
    BANS "SELECT b.user, u.name, b.address, b.until, b.reason FROM ban AS b
        LEFT JOIN user AS u ON u.id = b.user WHERE b.until > ?1 ORDER BY b.id";

    /// Replaces what an outsider may have left in that place.
    ADD_TOKEN "INSERT OR REPLACE INTO token (user, epoch, hash, password, expires) VALUES (?1, ?2, ?3, ?4, ?5)";
    REPLACE_TOKEN "UPDATE OR REPLACE token SET epoch = ?2, hash = ?3, password = ?4, expires = ?5 WHERE hash = ?1";
    TRIM_TOKENS "DELETE FROM token WHERE user = ?1 AND epoch <= (
        SELECT epoch FROM token WHERE user = ?1 ORDER BY epoch DESC LIMIT 1 OFFSET ?2)";
    TOKEN "SELECT user, epoch, hash, password, expires FROM token WHERE hash = ?1";
    DROP_TOKEN "DELETE FROM token WHERE hash = ?1";
    DROP_TOKENS "DELETE FROM token WHERE user = ?1";
    END_TOKENS "UPDATE token SET expires = ?3 WHERE user = ?1 AND epoch <= ?2 AND expires IS NULL";
    RENEW_TOKENS "UPDATE token SET password = ?3 WHERE user = ?1 AND password = ?2";
    EXPIRE_TOKENS "DELETE FROM token WHERE (user, epoch) IN (
        SELECT user, epoch FROM token WHERE expires <= ?1 ORDER BY expires LIMIT ?2)";

    ADD_FRIEND "INSERT INTO friend (user, friend) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    FRIENDS "SELECT u.id, u.name FROM friend AS f CROSS JOIN user AS u ON u.id = f.friend
        WHERE f.user = ?1 AND f.friend > ?2 ORDER BY f.friend LIMIT ?3";
    COUNT_FRIENDS "SELECT count(*) FROM (SELECT 1 FROM friend WHERE user = ?1 LIMIT ?2)";

    /// As `ADD_USER`.
    ADD_GROUP "INSERT INTO chatgroup (id, name, description) VALUES (
        CASE WHEN (SELECT seq FROM sqlite_sequence WHERE name = 'chatgroup') = 9223372036854775807
            THEN (SELECT coalesce(max(id), 0) + 1 FROM chatgroup WHERE id < 9007199254740991) END,
        ?1, ?2)";
    ADD_MEMBER "INSERT INTO member (groupid, user, role) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    GROUP "SELECT id, name, description FROM chatgroup WHERE id = ?1";
    GROUPS_OF "SELECT g.id, g.name, g.description FROM member AS m CROSS JOIN chatgroup AS g ON g.id = m.groupid
        WHERE m.user = ?1 AND m.groupid > ?2 ORDER BY m.groupid LIMIT ?3";
    COUNT_GROUPS "SELECT count(*) FROM (SELECT 1 FROM member WHERE user = ?1 LIMIT ?2)";
    /// What others have put there as a member's number may be anything.
    MEMBER_IDS "SELECT user FROM member WHERE groupid = ?1 AND typeof(user) = 'integer' ORDER BY user";
    MEMBERS "SELECT u.id, u.name, m.role FROM member AS m CROSS JOIN user AS u ON u.id = m.user
        WHERE m.groupid = ?1 AND m.user > ?2 ORDER BY m.user LIMIT ?3";

    KEEP "INSERT INTO box (user, mid, at, body, sent) VALUES (?1, ?2, ?3, ?4, ?5)";
    /// A short message; it moves on to `box` with many others.
    STAGE "INSERT INTO intake (id, user, mid, at, body, sent) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    ALL_STAGED "SELECT i.user, i.mid, i.id, octet_length(i.body) FROM intake AS i, settled AS s
        WHERE i.id > s.rows OR i.user > s.users ORDER BY i.user, i.mid";
    ADD_SHARED "INSERT INTO message (id, at, receivers, body) VALUES (?1, ?2, ?3, ?4)";
    ALL_SHARED "SELECT id, receivers, octet_length(body) FROM message WHERE receivers <> '[]' ORDER BY id";
    ALL_COPY_MARKS "SELECT user, dropped, sent FROM copy_mark";
    SHARED_BODY "SELECT body FROM message WHERE id = ?1";
    MARK_COPIES_SENT "INSERT INTO copy_mark (user, sent) VALUES (?1, ?2)
        ON CONFLICT (user) DO UPDATE SET sent = max(sent, excluded.sent)";
    MARK_COPIES_DROPPED "INSERT INTO copy_mark (user, dropped) VALUES (?1, ?2)
        ON CONFLICT (user) DO UPDATE SET dropped = max(dropped, excluded.dropped)";
    CLEAR_MARKS "DELETE FROM copy_mark";
    MOVE_COPY "INSERT OR REPLACE INTO box (user, mid, at, body, sent, message)
        SELECT ?1, ?2, at, x'', ?3, id FROM message WHERE id = ?4";
    /// The body is needed further.
    CLEAR_RECEIVERS "UPDATE message SET receivers = '[]' WHERE id = ?1";
    /// Unless a box still names it.
    DROP_MESSAGE "DELETE FROM message WHERE id = ?1
        AND NOT EXISTS (SELECT 1 FROM box WHERE message = ?1) RETURNING octet_length(body)";
    BOXED_TOTAL "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM box";
    /// Rows of `message` have no row of their own here: their copies are counted apart.
    STAGED_TOTAL "SELECT (SELECT count(*) FROM intake AS i, settled AS s WHERE i.id > s.rows OR i.user > s.users),
        (SELECT coalesce(sum(octet_length(i.body)), 0) FROM intake AS i, settled AS s
            WHERE i.id > s.rows OR i.user > s.users)
        + (SELECT coalesce(sum(octet_length(body)), 0) FROM message)";
    /// The largest integer where there is none.
    FIRST_STAGED "SELECT coalesce(min(id), 9223372036854775807) FROM intake";
    LAST_STAGED "SELECT max((SELECT coalesce(max(id), 0) FROM intake), (SELECT coalesce(max(id), 0) FROM message))";
    STAGED_MESSAGE "SELECT mid, body, sent FROM intake WHERE id = ?1";
    MARK_STAGED "UPDATE intake SET sent = 1 WHERE id = ?1 AND sent = 0";
    DROP_STAGED "DELETE FROM intake WHERE id = ?1";
    /// Replaces what an outsider may have put in that place.
    MOVE_STAGED "INSERT OR REPLACE INTO box (user, mid, at, body, sent)
        SELECT ?1, i.mid, i.at, i.body, i.sent FROM rarray(?2) AS r CROSS JOIN intake AS i ON i.id = r.value";
    CLEAR_STAGED "DELETE FROM intake WHERE id <= ?1";
    CURSOR "SELECT coalesce(max(rows), 0), coalesce(max(users), 0) FROM settled";
    SET_CURSOR "UPDATE settled SET rows = ?1, users = ?2";
    MARK_SENT "UPDATE box SET sent = 1 WHERE user = ?1 AND mid <= ?2 AND sent = 0";
    BOX_USAGE "SELECT count(*), coalesce(sum(octet_length(coalesce(m.body, b.body))), 0)
        FROM box AS b LEFT JOIN message AS m ON m.id = b.message WHERE b.user = ?1";
    BOX_USAGE_UPTO "SELECT count(*), coalesce(sum(octet_length(coalesce(m.body, b.body))), 0)
        FROM box AS b LEFT JOIN message AS m ON m.id = b.message WHERE b.user = ?1 AND b.mid <= ?2";
    KEPT "SELECT b.mid, coalesce(m.body, b.body), b.sent FROM box AS b LEFT JOIN message AS m ON m.id = b.message
        WHERE b.user = ?1 AND b.mid > ?2 ORDER BY b.mid LIMIT ?3";
    SHARED_IN_BOX "SELECT m.id, octet_length(m.body) FROM box AS b JOIN message AS m ON m.id = b.message
        WHERE b.user = ?1 AND b.mid <= ?2";
    DROP_KEPT "DELETE FROM box WHERE user = ?1 AND mid <= ?2";
    /// The first box from a user on, and whether its oldest message is too old. One seek, no body is read.
    NEXT_BOX "SELECT user, at < ?2 FROM box WHERE user >= ?1 ORDER BY user, mid LIMIT 1";
    /// Looks at the oldest messages only: numbers rise with time.
    EXPIRE_BOX "DELETE FROM box
        WHERE user = ?1 AND mid IN (SELECT mid FROM box WHERE user = ?1 ORDER BY mid LIMIT ?2) AND at < ?3
        RETURNING message, octet_length(body)";

    ACCEPT "INSERT INTO acceptance (at, chats) VALUES (?1, ?2)";
    ACCEPTED "SELECT at, chats FROM acceptance WHERE at > ?1 ORDER BY id";
    /// Numbers rise with time, and there is no index on `at`.
    EXPIRE_ACCEPTED "DELETE FROM acceptance
        WHERE id IN (SELECT id FROM acceptance ORDER BY id LIMIT ?1) AND at <= ?2";
    NOTE_REACHED "INSERT INTO reached (at, sender, fingerprint, users) VALUES (?1, ?2, ?3, ?4)";
    REACHED "SELECT users FROM reached WHERE sender = ?1 AND fingerprint = ?2";
    FORGET_REACHED "DELETE FROM reached WHERE sender = ?1 AND fingerprint = ?2";
    UNFINISHED "SELECT min(at), sender, fingerprint FROM reached
        WHERE typeof(sender) = 'integer' AND typeof(fingerprint) = 'blob' AND length(fingerprint) = 16
        GROUP BY sender, fingerprint HAVING min(at) > ?1 ORDER BY min(at)";
    EXPIRE_REACHED "DELETE FROM reached
        WHERE id IN (SELECT id FROM reached ORDER BY id LIMIT ?1) AND at <= ?2";
}
