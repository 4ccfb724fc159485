//! Which names a new user or group may have, and which names look alike.
//!
//! Plain functions, used by any thread. Users who exist keep their names, whatever these rules say; so nothing here is
//! asked at a login but [`composed`].

use std::borrow::Cow;

use unicase::UniCase;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_security::confusable_detection::skeleton;

use crate::escape::{chars_and_emoji, is_hidden};

/// The most characters in the name of a user or group.
pub const MAX_NAME_CHARS: usize = 64;

/// Characters that become one where they are composed, at most. No longer text is composed at all.
const COMPOSED_OF: usize = 4;

/// The name of a new user in its composed form, NFC. Whether it is free is not asked here.
///
/// # Errors
/// Which rule it breaks, as a sentence.
pub fn of_new_user(name: &str) -> Result<Cow<'_, str>, &'static str> {
    let name = acceptable(name)?;
    if name.nfkc().all(|c| c.is_ascii_digit()) {
        return Err("a name must not consist of digits only");
    }
    Ok(name)
}

/// The name of a new group in its composed form, NFC. Groups may share one.
///
/// # Errors
/// Which rule it breaks, as a sentence.
pub fn of_new_group(name: &str) -> Result<Cow<'_, str>, &'static str> {
    acceptable(name)
}

/// The composed form, NFC, of a name that has another form: what a client may have sent that decomposes names.
pub fn composed(name: &str) -> Option<String> {
    let is_short = name.chars().nth(COMPOSED_OF * MAX_NAME_CHARS).is_none();
    (is_short && !is_nfc(name)).then(|| name.nfc().collect())
}

fn acceptable(name: &str) -> Result<Cow<'_, str>, &'static str> {
    if name.is_empty() {
        return Err("a name must not be empty");
    }
    let name = composed(name).map_or(Cow::Borrowed(name), Cow::Owned);
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        return Err("a name has at most 64 characters");
    }
    if name.chars().any(char::is_control) {
        return Err("a name must not contain control characters");
    }
    if name.starts_with(' ') || name.ends_with(' ') || name.contains("  ") {
        return Err("a name must not begin or end with a space, or have two in a row");
    }
    if !name.is_ascii() {
        if chars_and_emoji(&name).any(|(_, c, in_emoji)| !in_emoji && is_hidden(c)) {
            return Err("a name must not contain characters that cannot be seen, or that are not in Unicode");
        }
        if name.starts_with(is_mark) {
            return Err("a name must not begin with a mark that belongs on a letter");
        }
    }
    Ok(name)
}

/// True exactly when a character is a mark on the one before it.
pub(crate) fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.general_category_group() == GeneralCategoryGroup::Mark
}

/// What a name looks like, whatever the case of its letters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skeletons {
    /// Of the name with folded case.
    pub folded: String,
    /// Of the name as it is, where that is another one: a capital I looks like an l.
    pub cased: Option<String>,
}

impl Skeletons {
    /// Those of a name.
    pub fn of(name: &str) -> Skeletons {
        let (folded, cased) = (folded_skeleton(&fold(name)), folded_skeleton(name));
        Skeletons { cased: Some(cased).filter(|cased| *cased != folded), folded }
    }

    /// True exactly when one name can be mistaken for the other.
    pub fn meet(&self, other: &Skeletons) -> bool {
        let is_others = |one: &str| other.folded == one || other.cased.as_deref() == Some(one);
        is_others(&self.folded) || self.cased.as_deref().is_some_and(is_others)
    }
}

fn folded_skeleton(name: &str) -> String {
    let folded = fold(&skeleton(name).collect::<String>());
    let mut words = folded.split_whitespace();
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| text + " " + word)
}

fn fold(text: &str) -> String {
    UniCase::new(text).to_folded_case()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Result<String, &'static str> {
        of_new_user(name).map(Cow::into_owned)
    }

    #[test]
    fn a_name_may_be_of_nearly_any_kind() {
        let longest = "汉".repeat(MAX_NAME_CHARS);
        for name in [
            "a",
            "zhang san",
            "13a",
            "1.3",
            "张三",
            "١٣",
            "alice: pay 1",
            "a\\b",
            "Ünïcode",
            "हिन्दी",
            "ไทย",
            "tiếng Việt",
            "👨‍👩‍👧",
            "❤️",
            "bob 🏳️‍🌈",
            "👩🏽‍💻",
            "1️⃣",
            "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
            "🇩🇪",
            &longest,
        ] {
            assert_eq!(user(name), Ok(name.to_owned()));
        }
    }

    #[test]
    fn a_name_that_could_not_be_seen_is_refused_with_the_rule_that_it_breaks() {
        let too_long = "é".repeat(MAX_NAME_CHARS + 1);
        let much_too_long = "e\u{301}".repeat(10_000);
        for (name, rule) in [
            ("", "empty"),
            (&*too_long, "64 characters"),
            (&*much_too_long, "64 characters"),
            ("13", "digits"),
            ("１３", "digits"),
            ("①", "digits"),
            ("a\n", "control"),
            ("\u{85}", "control"),
            (" a", "space"),
            ("a ", "space"),
            ("a  b", "space"),
            (" ", "space"),
            ("\u{301}a", "mark"),
        ] {
            let fault = user(name).unwrap_err();
            assert!(fault.contains(rule), "{name:?}: {fault}");
        }
        for hidden in [
            "\u{3164}",
            "\u{ffa0}",
            "\u{115f}",
            "\u{2800}",
            "\u{a0}",
            "\u{3000}",
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{200e}",
            "\u{202e}",
            "\u{2066}",
            "\u{2060}",
            "\u{feff}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{180e}",
            "\u{fe0f}",
            "\u{e0041}",
            "\u{e0100}",
            "\u{2028}",
            "\u{e000}",
            "\u{378}",
            "\u{fffc}",
            "\u{1d159}",
        ] {
            for name in [
                hidden.to_owned(),
                format!("alice{hidden}"),
                format!("al{hidden}ice"),
                format!("😀{hidden}😀"),
            ] {
                let fault = user(&name).unwrap_err();
                assert!(fault.contains("seen"), "{name:?}: {fault}");
            }
        }
    }

    #[test]
    fn a_decomposed_name_is_composed() {
        assert_eq!(user("e\u{301}"), Ok("é".to_owned()));
        assert_eq!(composed("e\u{301}").as_deref(), Some("é"));
        assert_eq!(composed("é"), None);
        assert_eq!(user(&"e\u{301}".repeat(MAX_NAME_CHARS)), Ok("é".repeat(MAX_NAME_CHARS)));
    }

    #[test]
    fn names_that_can_be_mistaken_for_each_other_meet() {
        for (one, other) in [
            ("alice", "Alice"),
            ("alice", "ALICE"),
            ("alice", "аlice"),
            ("ALICE", "аliсе"),
            ("linda", "Iinda"),
            ("user1", "userl"),
            ("paypal", "раураl"),
            ("straße", "STRASSE"),
            ("zhang san", "zhang\u{a0}san"),
            ("alice", "alice "),
            ("alice", "al\u{200b}ice"),
            ("é", "e\u{301}"),
            ("❤", "❤️"),
        ] {
            assert!(Skeletons::of(one).meet(&Skeletons::of(other)), "{one:?} {other:?}");
        }
        for (one, other) in
            [("alice", "bob"), ("user1", "user2"), ("user1", "user11"), ("ian", "lan"), ("é", "e")]
        {
            assert!(!Skeletons::of(one).meet(&Skeletons::of(other)), "{one:?} {other:?}");
        }
        assert_eq!(Skeletons::of("bob").cased, None, "most have one");
    }
}
