//! The rows of the table: what was measured at each server, and whether Linger meets its goal.

use std::fmt::Write as _;

/// What a row must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most so many times what the floor needs.
    TimesFloor(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// A row. Figures come by column: Linger first, then the peers.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    pub(crate) linger: Option<f64>,
    /// By the order of the peers.
    pub(crate) peers: [Option<f64>; 3],
}

impl Row {
    /// A row that only Linger has.
    pub(crate) fn own(what: &'static str, unit: &'static str, goal: Goal, linger: Option<f64>) -> Self {
        Row { what, unit, goal, linger, peers: [None; 3] }
    }

    /// Linger's figure in units of the floor's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.linger? / self.peers[0]?)
    }

    /// Whether the goal is met; `None` where it cannot be told.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::TimesFloor(times) => Some(self.ratio()? <= times),
            Goal::AtMost(most) => Some(self.linger? <= most),
            Goal::AtLeast(least) => Some(self.linger? >= least),
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::TimesFloor(times) => format!("≤ {times} × floor"),
            Goal::AtMost(most) => format!("≤ {most} {}", self.unit),
            Goal::AtLeast(least) => format!("≥ {least} {}", self.unit),
        }
    }
}

/// The table as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table =
        String::from("| what | unit | linger | floor | libevent | nats | × floor | goal | met |\n");
    table.push_str("|---|---|---|---|---|---|---|---|---|\n");
    let cell = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), short);
    for row in rows {
        let met = row.met().map_or("–", |met| if met { "yes" } else { "**no**" });
        let [floor, libevent, nats] = row.peers.map(cell);
        let (linger, ratio, goal) = (cell(row.linger), cell(row.ratio()), row.goal());
        let _ = writeln!(
            table,
            "| {} | {} | {linger} | {floor} | {libevent} | {nats} | {ratio} | {goal} | {met} |",
            row.what, row.unit
        );
    }
    table
}

/// About three digits.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => thousands(figure.round() as i64),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
