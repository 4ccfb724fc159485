//! Reading columns that other people may have written: a value of the wrong type becomes the nearest sensible
//! one, never a panic, so that one odd row does not void a whole batch.

use rusqlite::types::ValueRef;
use rusqlite::{Result, Row};

use crate::ids::{Epoch, UserId};
use crate::ip_block::AddrBlock;
use crate::store::{Ban, BanSubject, PasswordMark, TokenHash, TokenRow, UserMark, UserRow};

/// A user from `id, name, password, state, epoch`.
pub(super) fn user(row: &Row<'_>) -> Result<UserRow> {
    Ok(UserRow {
        id: UserId(row.get(0)?),
        name: text(row, 1)?,
        // Only NULL makes a guest. Anything else is a password, even one that nothing can match.
        password: optional_text(row, 2)?,
        online: matches!(row.get_ref(3)?, ValueRef::Text(b"online")),
        epoch: Epoch(optional_integer(row, 4)?.unwrap_or(0)),
    })
}

/// How a user stands, from `id, state, epoch`.
pub(super) fn mark(row: &Row<'_>) -> Result<UserMark> {
    Ok(UserMark {
        id: UserId(row.get(0)?),
        online: matches!(row.get_ref(1)?, ValueRef::Text(b"online")),
        epoch: Epoch(optional_integer(row, 2)?.unwrap_or(0)),
    })
}

/// A ban from `user, name, address, until, reason`; none if it bans neither a user nor addresses.
pub(super) fn ban(row: &Row<'_>) -> Result<Option<Ban>> {
    let banned = match (optional_integer(row, 0)?, optional_text(row, 2)?) {
        (Some(user), _) => Some(BanSubject::User(UserId(user))),
        (None, address) => address.and_then(|text| AddrBlock::from_stored(&text).ok()).map(BanSubject::Block),
    };
    let until_ms = optional_integer(row, 3)?.unwrap_or(0);
    // Clients that speak lines are told it in one.
    let one_line = |text: String| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let reason = optional_text(row, 4)?.map(|text| one_line(text).into());
    let name = optional_text(row, 1)?.map(Into::into);
    Ok(banned.map(|banned| Ban { banned, name, until_ms, reason }))
}

/// A token from `user, epoch, hash, password, expires`; none if a hash has not the length of one.
pub(super) fn token(row: &Row<'_>) -> Result<Option<TokenRow>> {
    let hash = |column| Ok::<_, rusqlite::Error>(<[u8; 32]>::try_from(bytes(row, column)?).ok());
    let (Some(token), Some(password)) = (hash(2)?, hash(3)?) else { return Ok(None) };
    Ok(Some(TokenRow {
        user: UserId(row.get(0)?),
        epoch: Epoch(row.get(1)?),
        hash: TokenHash(token),
        mark: PasswordMark(password),
        // What is no time at all is over.
        expires_ms: match row.get_ref(4)? {
            ValueRef::Null => None,
            _ => Some(optional_integer(row, 4)?.unwrap_or(0)),
        },
    }))
}

/// The columns `user, address` of whom a ban keeps out.
pub(super) fn banned_columns(banned: BanSubject) -> (Option<i64>, Option<String>) {
    match banned {
        BanSubject::User(user) => (Some(user.0), None),
        BanSubject::Block(block) => (None, Some(block.stored())),
    }
}

/// Text; what is not UTF-8 in it becomes U+FFFD, a number its digits, NULL nothing.
pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

/// The same, but NULL is `None`.
pub(super) fn optional_text(row: &Row<'_>, column: usize) -> Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// An integer; a fraction is cut off, anything else is `None`.
pub(super) fn optional_integer(row: &Row<'_>, column: usize) -> Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number),
        // `as` saturates, and makes 0 of what is not a number.
        ValueRef::Real(number) => Some(number as i64),
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    })
}

/// Bytes, as they are; a number or NULL is none.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    })
}
