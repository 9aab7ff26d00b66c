//! The seeds of guests, read back by the programs that they are for: cloud-init and a YAML parser.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rtkvm_tune::facts::Architecture;
use rtkvm_tune::formats::CpuSet;
use rtkvm_tune::guest::cloud_init::{Inside, check_own};
use rtkvm_tune::profile::keys::{KEYS, Kind};
use rtkvm_tune::profile::{Choice, Distribution, Kernel, Tuning, parse};
use serde_json::Value;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4y9bYxkYqz0000000000000000000000000000 me";

/// Has cloud-init check the texts, each a `#cloud-config`, against its schema.
#[track_caller]
fn valid(texts: &[String]) {
    let dir = tempfile::tempdir().expect("a directory");
    for (number, text) in texts.iter().enumerate() {
        let file = dir.path().join(number.to_string());
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new("cloud-init");
        let output = command.args(["schema", "--config-file"]).arg(&file).output();
        let output = output.expect("cloud-init starts; install the package cloud-init");
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("Valid"), "{said}\n{text}");
        assert!(!said.contains("eprecated"), "{said}\n{text}");
    }
}

/// What PyYAML, which cloud-init reads by, makes of the texts.
fn by_yaml(texts: &[String]) -> Vec<Value> {
    const READ: &str =
        "import json, sys, yaml\njson.dump([yaml.safe_load(t) for t in json.load(sys.stdin)], sys.stdout)";
    let mut command = Command::new("python3");
    let mut child =
        command.args(["-c", READ]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let input = serde_json::to_vec(texts).expect("strings");
    child.stdin.take().expect("a pipe").write_all(&input).expect("read");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "PyYAML refuses one of {texts:#?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn inside<'a>(rt: &'a CpuSet, keys: &'a [String], arguments: &'a [String]) -> Inside<'a> {
    Inside {
        name: "rt0",
        instance: "one",
        distribution: Distribution::Debian,
        architecture: Architecture::X86,
        kernel: Kernel::RealTime,
        tuning: Tuning::Plain,
        vcpus: 4,
        rt_vcpus: rt,
        ssh_keys: keys,
        kernel_arguments: arguments,
        own: None,
    }
}

fn set(list: &str) -> CpuSet {
    CpuSet::parse_list(list).unwrap()
}

#[test]
fn the_real_time_kernel_is_that_of_the_architecture() {
    for (architecture, package) in [(Architecture::X86, "rt-amd64"), (Architecture::Aarch64, "rt-arm64")] {
        let text = Inside { architecture, ..inside(&set("0-3"), &[], &[]) }.user_data();
        let named: Vec<&str> = text.matches("linux-image-rt-").collect();
        assert!(named.len() == 1 && text.contains(&format!("linux-image-{package}\"")), "{text}");
    }
}

#[test]
fn every_combination_is_valid() {
    let (all, first, keys) = (set("0-3"), set("0"), [KEY.to_owned()]);
    let arguments = ["console=ttyS0".to_owned(), "idle=poll".to_owned()];
    let mut texts = Vec::new();
    for distribution in Distribution::VALUES {
        for kernel in Kernel::VALUES {
            for tuning in Tuning::VALUES {
                let rich = inside(&all, &keys, &arguments);
                let rich = Inside { distribution: *distribution, kernel: *kernel, tuning: *tuning, ..rich };
                texts.push(rich.user_data());
                texts.push(
                    Inside { rt_vcpus: &first, ssh_keys: &[], kernel_arguments: &[], ..rich }.user_data(),
                );
            }
        }
    }
    assert_eq!(texts.len(), 32);
    valid(&texts);
}

/// The operator's own is a part of its own, to the byte, before ours.
#[test]
fn own_user_data_is_beside_ours() {
    let (rt, own) = (set("1-3"), "#cloud-config\nruncmd:\n - [touch, /root/mine]\n");
    for (own, kind) in [(own, "text/cloud-config"), ("#!/bin/sh\ntrue\n", "text/x-shellscript")] {
        let text = Inside { own: Some(own), ..inside(&rt, &[], &[]) }.user_data();
        let archive = text.strip_prefix("#cloud-config-archive\n").expect("an archive").to_owned();
        let [parts] = &by_yaml(&[archive])[..] else { panic!() };
        assert_eq!((&parts[0]["content"], &parts[0]["type"]), (&Value::from(own), &Value::from(kind)));
        let ours = parts[1]["content"].as_str().unwrap();
        let [config] = &by_yaml(&[ours.to_owned()])[..] else { panic!() };
        assert_eq!(config["merge_how"][0]["settings"][0], "append");
        assert_eq!(config["runcmd"][0][0], "update-grub");
        assert!(config["write_files"].to_string().contains("isolcpus=managed_irq,domain,1-3"), "{config}");
        let mut plain = config.clone();
        plain.as_object_mut().unwrap().remove("merge_how");
        valid(&[format!("#cloud-config\n{plain}")]);
    }
}

/// RHEL's package leaves the default as it is.
#[test]
fn the_real_time_kernel_of_rhel_is_made_the_default() {
    let choose = |distribution, kernel| {
        let text = Inside { distribution, kernel, ..inside(&set("0-3"), &[], &[]) }.user_data();
        let [config] = &by_yaml(&[text])[..] else { panic!() };
        let commands = config["runcmd"].as_array().unwrap().clone();
        commands.into_iter().find(|command| command.to_string().contains("--set-default"))
    };
    assert_eq!(choose(Distribution::Rhel, Kernel::Keep), None);
    assert_eq!(choose(Distribution::Debian, Kernel::RealTime), None);
    let command = choose(Distribution::Rhel, Kernel::RealTime).unwrap();
    // The names of both kinds of RHEL 9, in a directory of its own.
    let boot = tempfile::tempdir().unwrap();
    for name in [
        "5.14.0-70.rt21.142.el9.x86_64",
        "5.14.0-503.el9.x86_64",
        "5.14.0-427.el9.x86_64+rt",
        "0-rescue-1f2e",
    ] {
        std::fs::write(boot.path().join(format!("vmlinuz-{name}")), "").unwrap();
    }
    let boot = boot.path().display().to_string();
    let script = command[2].as_str().unwrap().replace("/boot", &boot).replacen("grubby", "echo", 1);
    let output =
        Command::new(command[0].as_str().unwrap()).args([command[1].as_str().unwrap(), &script]).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(said.trim(), format!("--set-default {boot}/vmlinuz-5.14.0-427.el9.x86_64+rt"));
}

#[test]
fn own_user_data_that_is_none_is_refused() {
    for good in [
        "#!/bin/sh\n: [\n",
        "#cloud-config\n",
        "#cloud-config\n# nothing yet\n",
        "#cloud-config\n---\na: [b, &c {d: 'e'}]\nf: *c\ng: |\n  - x: [\n",
        "#cloud-config\na: !!str 1\n...\n",
        "#cloud-config\r\na: b\r\n",
    ] {
        assert_eq!(check_own(good), Ok(()), "{good}");
    }
    for (bad, word) in [
        ("", "its first line"),
        ("a: b\n", "its first line"),
        ("#cloud-configs\n", "its first line"),
        ("#cloud-config\na: [b\n", "it is no YAML, line 3"),
        ("#cloud-config\na: b\n c: d\n", "it is no YAML, line 3"),
        ("#cloud-config\na:\n\t- b\n", "it is no YAML, line 3"),
        ("#cloud-config\n\n- a\n", "line 3: a `#cloud-config` is a mapping"),
        ("#cloud-config\na: b\n---\nc: d\n", "line 3: a second document"),
        ("#cloud-config\na: !x b\n", "line 2: cloud-init knows no tag"),
        ("#cloud-config\nhostname\n", "line 2: a `#cloud-config` is a mapping"),
    ] {
        let error = check_own(bad).unwrap_err();
        assert!(error.starts_with(word), "{bad}: {error}");
    }
}

#[test]
fn the_first_vcpu_is_never_isolated() {
    for (rt, isolated, kept) in [("0-3", "1-3", "0"), ("2-3", "2-3", "0-1"), ("1,3", "1,3", "0,2")] {
        let rt = set(rt);
        let text = inside(&rt, &[], &[]).user_data();
        assert!(
            text.contains(&format!("nohz_full={isolated} rcu_nocbs={isolated} irqaffinity={kept} ")),
            "{text}"
        );
        // The timer of pressure stalls and its work come to each CPU, isolated ones too.
        assert!(text.contains(" psi=0"), "{text}");
        let tuned = Inside { tuning: Tuning::Tuned, ..inside(&rt, &[], &[]) }.user_data();
        assert!(
            tuned.contains(&format!("isolated_cores={isolated}\\n"))
                && !tuned.contains("isolcpus")
                && !tuned.contains("psi="),
            "{tuned}"
        );
    }
    let rt = set("0");
    assert!(!inside(&rt, &[], &[]).user_data().contains("isolcpus"));
}

/// The strings of a profile that reach a seed.
#[test]
fn every_string_of_a_seed_is_tried() {
    let strings = KEYS.iter().filter(|key| key.section == "guest.cloud-init");
    let strings = strings.filter(|key| matches!(key.kind, Kind::Text | Kind::TextList)).map(|key| key.name);
    // The last is the path of a file, which is read and reaches nothing.
    let tried = ["ssh-keys", "guest-arguments", "instance-id", "user-data"];
    let missing: Vec<_> = strings.filter(|key| !tried.contains(key)).collect();
    assert_eq!(missing, [""; 0], "add these to the strings below");
}

/// The guest's kernel arguments as the guest's own shell has them after the file of its GRUB; `None` if the profile is
/// refused.
fn in_the_guest(argument: &str) -> Option<String> {
    let profile = format!(
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = '6GiB'\n[[guest]]\nname = 'a'\n\
         vcpus = 2\nmemory = '1GiB'\n[guest.cloud-init]\ndistribution = 'debian'\nguest-arguments = [{}]\n",
        Value::from(argument)
    );
    let parsed = parse("p.toml", profile.as_bytes()).ok()?;
    let arguments = parsed.profile.guests[0].cloud_init.as_ref()?.kernel_arguments.clone();
    let (rt, arguments) =
        (set("0"), arguments.into_iter().map(|argument| argument.value).collect::<Vec<_>>());
    let text = inside(&rt, &[], &arguments).user_data();
    let [config] = &by_yaml(&[text])[..] else { panic!() };
    let files = config["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"].as_str().unwrap().contains("grub.d")).expect("it");
    let script = format!("{}printf %s \"$GRUB_CMDLINE_LINUX_DEFAULT\"", file["content"].as_str().unwrap());
    let output = Command::new("sh").args(["-c", &script]).env_clear().output().expect("a shell");
    Some(String::from_utf8(output.stdout).unwrap().trim_start().to_owned())
}

#[test]
fn an_argument_of_the_guest_is_no_command() {
    assert_eq!(in_the_guest("console=ttyS0,115200").as_deref(), Some("console=ttyS0,115200"));
    for hostile in ["a=\"b", "a=$(id)", "a=`id`", "a=\\b", "a b", "a=b\nc", "a=$HOME", "a'b", "a;b", "", "--"]
    {
        let found = in_the_guest(hostile);
        assert!(found.is_none() || found.as_deref() == Some(hostile), "{hostile}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn arguments_of_the_guest_are_refused_or_stay_what_they_are(argument in "[a-z]{1,3}=[ -~\n\t]{0,12}") {
        let found = in_the_guest(&argument);
        prop_assert!(found.is_none() || found.as_deref() == Some(&*argument), "{:?}", found);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever stands in a string comes back as that string: it ends none, and makes no key.
    #[test]
    fn no_text_leaves_its_string(
        own in "(?s)[ -~\t\r\n\u{0}-\u{9f}\u{2028}\u{2029}\u{feff}\u{ffff}:#{}\\[\\]'\"\\\\äß中😀]{0,60}",
        key in "[ -~\n\"'\\\\:{}\u{85}]{0,40}",
        name in "[ -~\n\"'\\\\:{}]{1,40}",
    ) {
        let (rt, own) = (set("1-3"), format!("#cloud-config\n{own}"));
        let keys = [key.clone()];
        let plain = inside(&rt, &keys, &[]);
        let seed = Inside { name: &name, instance: &name, own: Some(&own), ..plain.clone() };
        let archive = seed.user_data().strip_prefix("#cloud-config-archive\n").unwrap().to_owned();
        let read = by_yaml(&[seed.meta_data(), plain.user_data(), archive]);
        prop_assert_eq!(&read[0]["instance-id"], &Value::from(name.clone()));
        prop_assert_eq!(read[0].as_object().unwrap().len(), 2);
        let host = read[0]["local-hostname"].as_str().unwrap();
        prop_assert!(host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{}", host);
        prop_assert_eq!(&read[1]["ssh_authorized_keys"], &serde_json::json!([key]));
        prop_assert_eq!(read[1].as_object().unwrap().len(), 6);
        prop_assert_eq!(&read[2][0]["content"], &Value::from(own.clone()));
        prop_assert_eq!(read[2].as_array().unwrap().len(), 2);
    }
}
