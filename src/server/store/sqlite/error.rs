//! Turning SQLite's errors into sentences: which operation, which file, what helps. Any thread; touches nothing.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::StorageError;

/// The error of an operation, `doing` being a phrase such as "marking a user online".
#[cold]
pub(super) fn storage_error(doing: &str, path: &Path, error: &rusqlite::Error) -> StorageError {
    let text = format!("{doing} failed in {}: {}", path.display(), explain(error));
    let refused = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                // What SQLite says of a table or column that is not there, and of a trigger's own refusal.
                | ErrorCode::Unknown
        )
    );
    StorageError { text, refused }
}

/// SQLite's own words, its code, and a hint where there is one.
#[cold]
pub(super) fn explain(error: &rusqlite::Error) -> String {
    let mut text = error.to_string();
    if let Some(failure) = error.sqlite_error() {
        // Writing to a string cannot fail.
        let _ = write!(text, " (SQLite code {})", failure.extended_code);
    }
    if let Some(hint) = error.sqlite_error_code().and_then(hint) {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

fn hint(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::DiskFull => "the disk or a quota is full, make room",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another process holds the database locked, let it finish"
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            "the database and its directory must be writable for the server's user"
        }
        ErrorCode::CannotOpen => "the file and its directory must exist and be accessible",
        ErrorCode::SystemIoFailure => "the disk or file system reports an error, see the system's log",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "the file is damaged, restore it from a backup"
        }
        _ => return None,
    })
}
