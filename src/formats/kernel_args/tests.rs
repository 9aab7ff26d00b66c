use super::*;
use proptest::prelude::*;

fn args(text: &str) -> Vec<KernelArg> {
    text.split_whitespace().map(|token| KernelArg::parse(token).unwrap()).collect()
}

fn set(text: &str, new: &str) -> String {
    let mut line = KernelArgs::parse(text);
    line.set(&args(new));
    line.to_string()
}

#[test]
fn refuses_what_a_shell_or_grub_would_read() {
    for c in "\"$`\\\n\t ;&|<>*?!#'{}^\u{1}\u{e4}".chars() {
        let error = KernelArg::new("isolcpus", Some(&format!("2{c}7"))).unwrap_err();
        assert!(error.contains(&shown(c)) && error.contains("`isolcpus`"), "{error}");
    }
    for (token, word) in [
        ("", "is empty"),
        ("=1", "is empty"),
        ("--", "hands what follows to init"),
        ("-x", "not a kernel parameter name"),
        ("a b", "not a kernel parameter name"),
        ("a$", "not a kernel parameter name"),
        ("a=b c", "a space: it would end the argument"),
        ("a=$(id)", "`$`: update-grub"),
        ("a=`id`", "a backtick: update-grub"),
    ] {
        let error = KernelArg::parse(token).unwrap_err();
        assert!(error.contains(word), "{token}: {error}");
    }
    for token in ["nosmt", "isolcpus=managed_irq,domain,2-7", "a.b=", "memmap=1G@0x10", "hugepages=0:25,1:25"]
    {
        assert_eq!(KernelArg::parse(token).unwrap().to_string(), token);
    }
}

#[test]
fn reads_quotes_and_init_arguments() {
    let line = KernelArgs::parse("a=1 b=\"x y\" \"c=x y\" kvm-intel.nested=0 a -- a=2\n");
    assert_eq!(
        line.tokens().collect::<Vec<_>>(),
        ["a=1", "b=\"x y\"", "\"c=x y\"", "kvm-intel.nested=0", "a"]
    );
    assert_eq!(line.values("a"), [Some("1"), None]);
    assert_eq!((line.values("b"), line.values("c")), (vec![Some("x y")], vec![Some("x y")]));
    assert_eq!(line.values("kvm_intel.nested"), [Some("0")]);
    assert_eq!(KernelArgs::parse("a \"--\" b").tokens().count(), 1);
    assert_eq!(KernelArgs::parse("a --b=1 ---").tokens().count(), 3);
}

/// The kernel takes the first default size only; what the second one's count says stays what it was all the same.
#[test]
fn a_size_put_in_front_of_a_count_is_not_taken_for_the_next() {
    assert_eq!(
        set("default_hugepagesz=2M hugepages=0 default_hugepagesz=1G hugepages=0", "default_hugepagesz=1G"),
        "hugepagesz=2M hugepages=0 hugepagesz=1G hugepages=0 default_hugepagesz=1G"
    );
}

#[test]
fn sets_before_init_arguments_and_keeps_the_rest() {
    assert_eq!(set("ro  isolcpus=1\tquiet -- x", "isolcpus=2-7 nosmt"), "ro\tquiet isolcpus=2-7 nosmt -- x");
    assert_eq!(set("-- x", "nosmt"), "nosmt -- x");
    assert_eq!(set("", "nosmt"), "nosmt");
    assert_eq!(set("quiet\n", "nosmt"), "quiet nosmt\n");
    assert_eq!(set("rcu-nocbs=1 quiet", "rcu_nocbs=2"), "quiet rcu_nocbs=2");
    assert_eq!(set("console=tty0", "console=tty0 console=ttyS0"), "console=tty0 console=ttyS0");
    assert_eq!(set("quiet dyndbg=\"open", "nosmt"), "quiet nosmt dyndbg=\"open");
    assert_eq!(set("  dyndbg=\"open", "nosmt"), "  nosmt dyndbg=\"open");
}

#[test]
fn finds_runs() {
    let line = KernelArgs::parse("a default-hugepagesz=1G hugepagesz=1G hugepages=0:25,1:25 b");
    assert!(line.contains_run(&args("default_hugepagesz=1G hugepagesz=1G hugepages=0:25,1:25")));
    assert!(line.contains_run(&args("b")) && line.contains_run(&[]));
    assert!(!line.contains_run(&args("a hugepagesz=1G")));
    assert!(!line.contains_run(&args("hugepages=0:25,1:25 hugepagesz=1G")));
    assert!(!KernelArgs::parse("a -- b").contains_run(&args("b")));
}

#[test]
fn huge_pages_go_by_size() {
    let line = KernelArgs::parse("hugepages=7 hugepagesz=2M hugepages=512 hugepagesz=1024M hugepages=4");
    assert_eq!((line.hugepages_of("2048K"), line.hugepages_of("1G")), (Some("512"), Some("4")));
    assert_eq!(line.hugepages_of("1048576K"), Some("4"));
    assert_eq!(line.hugepages_of("16M"), None);
    let line = KernelArgs::parse("hugepages=7 default_hugepagesz=1G");
    assert_eq!((line.hugepages_of("1G"), line.hugepages_of("2M")), (Some("7"), None));

    let ours = "default_hugepagesz=1G hugepagesz=1G hugepages=25";
    for (before, after) in [
        ("hugepagesz=2M hugepages=512 quiet", "hugepagesz=2M hugepages=512 quiet OURS"),
        ("hugepagesz=1024M hugepages=4 hugepagesz=2M hugepages=512", "hugepagesz=2M hugepages=512 OURS"),
        ("hugepagesz=2M hugepages=512 hugepagesz=1G hugepages=4", "hugepagesz=2M hugepages=512 OURS"),
        ("default_hugepagesz=1G hugepages=4", "OURS"),
        // Counts that rest on the old default keep their size.
        ("default_hugepagesz=2M hugepages=512", "hugepagesz=2M hugepages=512 OURS"),
        ("hugepages=512 default_hugepagesz=2M x", "hugepagesz=2M hugepages=512 x OURS"),
        // 512 pages of the unknown default would become 512 pages of 1 GiB.
        ("hugepages=512 quiet", "quiet OURS"),
    ] {
        assert_eq!(set(before, ours), after.replace("OURS", ours), "{before}");
    }
    assert_eq!(set("hugepagesz=2M hugepages=512", "hugepages=9"), "hugepages=9 hugepagesz=2M hugepages=512");
}

#[test]
fn removes_pairs_whole() {
    let mut line = KernelArgs::parse("hugepagesz=2M hugepages=512 a hugepagesz=1G hugepages=4 b -- a");
    line.unset(&args("default_hugepagesz=1G hugepagesz=1G hugepages=4"));
    assert_eq!(line.to_string(), "hugepagesz=2M hugepages=512 a b -- a");
    line.remove(&["a", "hugepages"]);
    assert_eq!(line.to_string(), "b -- a");
    let mut line = KernelArgs::parse("default_hugepagesz=2M hugepages=512");
    line.remove(&["default_hugepagesz"]);
    assert_eq!(line.to_string(), "hugepagesz=2M hugepages=512");
    let mut line = KernelArgs::parse("hugepages=5 x");
    line.unset(&args("default_hugepagesz=1G"));
    assert_eq!(line.to_string(), "hugepages=5 x");
}

/// Words that meet: the same few names, huge pages, quotes, `--`.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[ -~]{0,12}",
        Just("--".to_owned()),
        "(default_hugepagesz|hugepagesz)=(2M|1G|1048576K)",
        "hugepages=[0-9]{1,3}",
        "(isolcpus|rcu-nocbs|quiet)(=[0-9]{1,2})?",
    ];
    prop::collection::vec(word, 0..8).prop_map(|words| words.join(" "))
}

fn ours() -> impl Strategy<Value = Vec<KernelArg>> {
    prop_oneof![
        Just("isolcpus=2-7 rcu_nocbs=2-7 default_hugepagesz=1G hugepagesz=1G hugepages=25"),
        Just("hugepagesz=2M hugepages=9 nosmt"),
        Just("default_hugepagesz=1G"),
        Just("isolcpus=1 quiet"),
        Just("hugepages=3"),
        Just(""),
    ]
    .prop_map(args)
}

fn others<'a>(line: &'a KernelArgs, args: &'a [KernelArg]) -> Vec<&'a str> {
    let ours = |name: &str| args.iter().any(|arg| same_name(arg.name(), name));
    line.tokens().filter(|token| !ours(split(token).0) && !is_huge(split(token).0)).collect()
}

proptest! {
    #[test]
    fn text_is_kept(text in "\\PC{0,60}", line in line()) {
        prop_assert_eq!(KernelArgs::parse(&text).to_string(), text);
        prop_assert_eq!(KernelArgs::parse(&line).to_string(), line);
    }

    #[test]
    fn set_gives_the_values(text in line(), new in ours()) {
        let before = KernelArgs::parse(&text);
        let mut after = before.clone();
        after.set(&new);
        let read = KernelArgs::parse(&after.to_string());
        prop_assert!(read.contains_run(&new), "{}", after);
        for arg in new.iter().filter(|arg| !is_huge(arg.name())) {
            prop_assert_eq!(read.values(arg.name()), vec![arg.value()]);
        }
        prop_assert_eq!(others(&read, &new), others(&before, &new));
        // Foreign page counts are as they were, unless ours are for the default size, whichever that is.
        let huge = KernelArgs::parse(&new.iter().map(|arg| format!("{arg} ")).collect::<String>());
        for size in ["2M", "1G"] {
            match huge.hugepages_of(size) {
                Some(count) => prop_assert_eq!(read.hugepages_of(size), Some(count)),
                None if huge.tokens().next() == Some("hugepages=3") => {}
                None => prop_assert_eq!(read.hugepages_of(size), before.hugepages_of(size)),
            }
        }
    }

    #[test]
    fn set_twice_is_set_once(text in line(), new in ours()) {
        let mut once = KernelArgs::parse(&text);
        once.set(&new);
        let mut twice = KernelArgs::parse(&once.to_string());
        twice.set(&new);
        prop_assert_eq!(twice.to_string(), once.to_string());
    }

    #[test]
    fn unset_restores(text in line(), new in ours()) {
        let mut plain = KernelArgs::parse(&text);
        plain.unset(&new);
        plain.remove(&["default_hugepagesz", "hugepages"]);
        let mut line = plain.clone();
        line.set(&new);
        line.unset(&new);
        prop_assert_eq!(line.to_string(), plain.to_string());
        let names: Vec<&str> = new.iter().map(KernelArg::name).collect();
        line.set(&new);
        line.remove(&names);
        prop_assert_eq!(line.to_string(), plain.to_string());
    }

    #[test]
    fn arguments_round_trip(token in "[a-z_][a-z0-9_.-]{0,8}(=[a-zA-Z0-9_.,:=/+@%~()\\[\\]-]{0,12})?", any in ".{0,20}") {
        prop_assert_eq!(KernelArg::parse(&token).unwrap().to_string(), token);
        if let Ok(arg) = KernelArg::parse(&any) {
            prop_assert_eq!(arg.to_string(), any);
        }
    }
}

#[test]
fn pages_in_the_way_of_ours() {
    for (line, found) in [
        ("quiet ro", None),
        ("hugepages=1024", Some("hugepages=1024")),
        ("hugepagesz=2M hugepages=512", None),
        ("hugepagesz=1G hugepages=8", Some("hugepagesz=1G")),
        ("hugepagesz=1024M hugepages=8", Some("hugepagesz=1024M")),
        ("default_hugepagesz=2M", Some("default_hugepagesz=2M")),
        ("default_hugepagesz=1G", None),
        ("default_hugepagesz=1G hugepages=8", Some("hugepages=8")),
        ("x -- hugepages=8", None),
    ] {
        assert_eq!(KernelArgs::parse(line).pages_in_the_way("1G").as_deref(), found, "{line}");
    }
}
