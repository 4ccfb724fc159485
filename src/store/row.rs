//! Reading columns that other people may have written: a value of the wrong type becomes the nearest sensible
//! one, never a panic, so that one odd row does not void a whole batch.

use rusqlite::types::ValueRef;
use rusqlite::{Result, Row};

use crate::ident::{Epoch, UserId};
use crate::service::storage::UserRow;

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
