//! Tests of the whole way from texts to a [`Config`].

use clap::{Args, Command, FromArgMatches};

use super::*;

/// Flags as a shell would hand them in, variables, and the text of a file.
fn load(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("linger.toml");
    let mut line = vec!["serve".to_owned()];
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        line.extend(["--config".to_owned(), path.display().to_string()]);
    }
    line.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let matches = Flags::augment_args(Command::new("serve")).get_matches_from(line);
    let flags = Flags::from_arg_matches(&matches).unwrap();
    Config::load(&flags, |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

fn complaint(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> String {
    let error = load(flags, env, file).unwrap_err();
    assert!(error.is_usage());
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = load(&[], &[], None).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let expected = Config {
        data: "linger-data".into(),
        listen: vec!["127.0.0.1:6000".parse().unwrap()],
        line: None,
        workers: cores.min(MAX_WORKERS),
        grace: Duration::from_secs(5),
        duplicate: Duplicate::Takeover,
        durability: Durability::Full,
        max_channels: None,
        max_frame: 65_536,
        out_limit: 1_048_576,
        login_timeout: Duration::from_mins(5),
        idle: None,
        write_timeout: Duration::from_secs(10),
        ping_interval: Duration::from_secs(25),
        ping_timeout: Duration::from_secs(8),
        keepalive: Keepalive { idle: Duration::from_mins(1), interval: Duration::from_secs(10), probes: 3 },
        user_timeout: Duration::from_secs(30),
        login_failures: 10,
        address_failures: 100,
        address_registrations: AddressLimit { at_most: 30, spares_loopback: true },
        address_channels: 64,
        request_rate: None,
        groups_max: 1000,
        friends_max: 5000,
        box_messages: 1000,
        box_bytes: 16 * 1024 * 1024,
        box_total: 4 * 1024 * 1024 * 1024,
        ack_window: 32,
        box_age: Duration::from_hours(7 * 24),
        history_age: Duration::from_hours(7 * 24),
        history_rows: 100_000,
        presence_delay: Duration::from_secs(5),
        argon2: Argon2Cost { memory_kib: 19_456, passes: 2, lanes: 1 },
        stop_drain: Duration::from_secs(2),
        log: LevelFilter::INFO,
        log_format: LogFormat::Text,
    };
    assert_eq!(config, expected);
}

#[test]
fn keys_are_the_fields_with_dashes_and_the_variables_follow_them() {
    let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key.replace('-', "_")).collect();
    assert_eq!(keys, FIELDS);
    assert_eq!(env_name("max-frame"), "LINGER_MAX_FRAME");
}

#[test]
fn every_setting_is_heard_from_each_place_and_refuses_nonsense_from_each() {
    for setting in SETTINGS.iter().filter(|setting| setting.key != "data") {
        let (key, nonsense) = (setting.key, "\u{1}?");
        let flag = complaint(&[&format!("--{key}"), nonsense], &[], None);
        assert!(flag.starts_with(&format!("--{key}: ")), "{flag}");
        let env = complaint(&[], &[(&env_name(key), nonsense)], None);
        assert!(env.contains(&format!("{key} (from the environment variable {})", env_name(key))), "{env}");
        for key_in_file in [key.to_owned(), key.replace('-', "_")] {
            let file = complaint(&[], &[], Some(&format!("{key_in_file} = '?'")));
            assert!(file.starts_with(&format!("{key} (from ")) && file.contains("linger.toml"), "{file}");
        }
        for text in [flag, env] {
            assert!(text.ends_with(&(setting.allowed)()), "{text}");
        }
    }
}

#[test]
fn a_limit_of_an_address_that_somebody_gives_holds_for_loopback_though_it_be_the_default() {
    for (flags, env, file) in [
        (&["--address-registrations", "30"][..], &[][..], None),
        (&[], &[("LINGER_ADDRESS_REGISTRATIONS", "30")], None),
        (&[], &[], Some("address-registrations = 30")),
    ] {
        let limit = load(flags, env, file).unwrap().address_registrations;
        assert_eq!(limit, AddressLimit { at_most: 30, spares_loopback: false });
    }
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let (file, env, flag) = (Some("grace = '2s'"), &[("LINGER_GRACE", "3s")], &["--grace", "4s"]);
    let grace = |config: Result<Config, ConfigError>| config.unwrap().grace.as_secs();
    assert_eq!(grace(load(&[], &[], None)), 5);
    assert_eq!(grace(load(&[], &[], file)), 2);
    assert_eq!(grace(load(&[], env, file)), 3);
    assert_eq!(grace(load(flag, env, file)), 4);
    assert_eq!(grace(load(&[], &[("LINGER_GRACE", "")], file)), 2);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.toml");
    std::fs::write(&path, "workers = 3\nmax_frame = 4096\nlisten = ['127.0.0.1:0', '[::1]:0']\n").unwrap();
    let config = load(&[], &[(CONFIG_ENV, path.to_str().unwrap())], None).unwrap();
    assert_eq!((config.workers, config.max_frame, config.listen.len()), (3, 4096, 2));
}

#[test]
fn listen_may_be_repeated_and_the_words_for_none_are_taken() {
    let flags = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--line", "127.0.0.1:6001"];
    let config = load(&flags, &[("LINGER_IDLE", "2m")], None).unwrap();
    assert_eq!((config.listen.len(), config.line), (2, Some("127.0.0.1:6001".parse().unwrap())));
    assert_eq!(config.idle, Some(Duration::from_mins(2)));
    let config = load(&["--idle", "off", "--max-channels", "auto"], &[("LINGER_IDLE", "2m")], None).unwrap();
    assert_eq!((config.idle, config.max_channels), (None, None));
}

#[test]
fn one_address_for_two_listeners_is_refused() {
    let text = complaint(&["--line", "127.0.0.1:6000"], &[], None);
    assert!(text.contains("127.0.0.1:6000"), "{text}");
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_nearest_known_one() {
    for (written, nearest) in [("max_fram", "max-frame"), ("Grace", "grace"), ("log_fmt", "log-format")] {
        let text = complaint(&[], &[], Some(&format!("{written} = 1")));
        for part in [written, nearest, "linger.toml"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_key_in_both_spellings_is_refused() {
    let text = complaint(&[], &[], Some("max_frame = 4096\nmax-frame = 8192\n"));
    assert!(text.contains("max-frame") && text.contains("twice"), "{text}");
}

#[test]
fn the_bounds_are_part_of_the_range() {
    for (flag, good, bad) in [
        ("--grace", vec!["0s", "1h"], vec!["3601s", "-1s", "5"]),
        ("--workers", vec!["1", "256"], vec!["0", "257", "-1", "2.5"]),
        ("--max-frame", vec!["256", "16MiB"], vec!["255", "16777217"]),
        ("--stop-drain", vec!["0s", "8s"], vec!["8001ms"]),
        ("--box-age", vec!["1s", "7d", "3650d"], vec!["0s", "999ms", "3651d", "7"]),
        ("--history-age", vec!["1s", "3650d"], vec!["0s", "3651d"]),
        ("--history-rows", vec!["1", "1000000"], vec!["0", "1000001", "7d"]),
        ("--presence-delay", vec!["0s", "1h"], vec!["3601s", "-1s", "5"]),
    ] {
        for value in good {
            load(&[flag, value, "--out-limit", "16MiB", "--box-bytes", "17MiB"], &[], None).unwrap();
        }
        for value in bad {
            complaint(&[flag, value], &[], None);
        }
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let text = complaint(&[], &[], Some("workers = 2\ngrace = = 5\n"));
    assert!(text.contains("linger.toml, line 2"), "{text}");
    let text = complaint(&[], &[], Some("grace = 5.5"));
    assert!(text.contains("5.5") && text.contains("from 0s to 1h"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(&["--config", "/nonexistent/linger.toml"], &[], None).unwrap_err();
    assert!(!error.is_usage());
    assert!(error.to_string().contains("/nonexistent/linger.toml"));
    let endless = load(&["--config", "/dev/zero"], &[], None).unwrap_err();
    assert!(endless.to_string().contains("1 MiB"), "{endless}");
}

#[test]
fn a_variable_that_is_no_text_may_name_a_path_and_nothing_else() {
    use std::os::unix::ffi::OsStringExt;
    let no_text = OsString::from_vec(vec![0xff]);
    let env = |wanted| {
        let no_text = no_text.clone();
        move |name: &str| (name == wanted).then(|| no_text.clone())
    };
    let config = Config::load(&Flags::default(), env("LINGER_DATA")).unwrap();
    assert_eq!(config.data.as_os_str(), no_text);
    let error = Config::load(&Flags::default(), env("LINGER_WORKERS")).unwrap_err();
    assert!(error.to_string().contains("LINGER_WORKERS"), "{error}");
}

#[test]
fn a_user_timeout_that_would_end_slow_readers_first_is_refused() {
    let error = load(&["--user-timeout", "10s"], &[], None).unwrap_err();
    assert!(error.to_string().contains("--write-timeout"), "{error}");
    assert!(error.is_usage());
}

#[test]
fn a_quiet_connection_is_given_all_its_keepalive_probes() {
    for (flags, seconds) in [
        (&[][..], 60 + 3 * 10),
        (&["--keepalive", "1s,1s,2"], 30),
        (&["--keepalive", "32767s,32767s,127"], i32::MAX as u64 / 1000),
    ] {
        let config = load(flags, &[], None).unwrap();
        assert_eq!(config.quiet_timeout().as_secs(), seconds, "{flags:?}");
    }
}
