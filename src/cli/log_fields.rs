//! The fields of a log line as text. Values of others stand between quotes, and an emoji of several characters is whole.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use linger_server::escape::Quoted;

/// Writes fields as `tracing_subscriber` does, but for the values that are strings.
pub(super) struct LogFields;

/// Writes the fields of one line.
pub(super) struct LineOfFields<'a>(DefaultVisitor<'a>);

impl<'a> MakeVisitor<Writer<'a>> for LogFields {
    type Visitor = LineOfFields<'a>;

    fn make_visitor(&self, writer: Writer<'a>) -> LineOfFields<'a> {
        LineOfFields(DefaultVisitor::new(writer, true))
    }
}

impl Visit for LineOfFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.record_str(field, value);
        } else {
            self.0.record_debug(field, &Quoted(value));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

impl VisitOutput<fmt::Result> for LineOfFields<'_> {
    fn finish(self) -> fmt::Result {
        self.0.finish()
    }
}

impl VisitFmt for LineOfFields<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        self.0.writer()
    }
}
