//! The boot files as their real readers see them: `sh` and grub-mkconfig (packages grub-common, grub2-common).

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use rtkvm_tune::formats::grubenv::Environment;
use rtkvm_tune::formats::kernel_args::{KernelArg, KernelArgs};
use rtkvm_tune::formats::shell_vars::{self, Value};
use rtkvm_tune::formats::{grub, grub_menu, kernel_args, trial};

const OURS: &str = "isolcpus=managed_irq,domain,2-7 default_hugepagesz=1G hugepagesz=1G hugepages=0:4";
const CLOUD: &str = "50-cloudimg-settings.cfg";
const CLOUD_TEXT: &str = "GRUB_CMDLINE_LINUX_DEFAULT=\"console=tty1 console=ttyS0\"\n";
const DROP_IN: &str = "99-rtkvm-tune.cfg";

fn args(text: &str) -> Vec<KernelArg> {
    text.split_whitespace().map(|token| KernelArg::parse(token).unwrap()).collect()
}

fn run(command: &mut Command, package: &str) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| panic!("cannot run {name}: {error}; install package {package}"))
}

/// Sources the files as grub-mkconfig does and prints a variable; `None` if it is not set or sh fails.
fn sourced(files: &[&Path], variable: &str) -> Option<String> {
    let script =
        format!("for f; do . \"$f\"; done; [ -n \"${{{variable}+x}}\" ] && printf %s. \"${variable}\"");
    let output = run(Command::new("sh").env_clear().args(["-c", &script, "sh"]).args(files), "dash");
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.strip_suffix('.').unwrap().to_owned())
}

fn arg() -> impl Strategy<Value = KernelArg> {
    "[a-z_][a-zA-Z0-9_.-]{0,8}(=[a-zA-Z0-9_.,:=/+@%~()\\[\\]-]{0,12})?"
        .prop_map(|token| KernelArg::parse(&token).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any arguments we accept reach grub-mkconfig unchanged, behind what a cloud image assigned.
    #[test]
    fn sh_reads_the_drop_in(args in prop::collection::vec(arg(), 0..6)) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let default = "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n";
        let files = [write("grub", default), write(CLOUD, CLOUD_TEXT), write(DROP_IN, &grub::drop_in(&args))];
        let ours: String = args.iter().map(|arg| format!(" {arg}")).collect();
        let expected = format!("console=tty1 console=ttyS0{ours}");
        let read = sourced(&files.each_ref().map(|file| file.as_path()), "GRUB_CMDLINE_LINUX_DEFAULT");
        prop_assert_eq!(read.as_ref(), Some(&expected));
        let text = grub::drop_in(&args);
        let predicted = grub::predicted(default, &[(CLOUD, CLOUD_TEXT), (DROP_IN, &text)]).unwrap();
        prop_assert_eq!(predicted, KernelArgs::parse(&expected));
    }

    /// What we claim to know of a file of assignments is what sh finds in it.
    #[test]
    fn sh_agrees_on_variables(parts in prop::collection::vec(
        "\n?[AB]=|[ab~:#=]|[ \n;]|'|\"|\\\\[a$\"\n]|\\$[AB{]|\\$\\{[AB]\\}|\
         '[a \"$]{0,3}'|\"[a $'#]{0,3}\"|\"\\\\[a$`\"\\\\\n]a?\"|export A|A",
        0..12,
    )) {
        let text = format!("A=1\n{}\n", parts.concat());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars");
        fs::write(&path, &text).unwrap();
        let vars = shell_vars::parse(&text);
        for name in ["A", "B"] {
            let read = || sourced(&[&path], name);
            match vars.get(name) {
                Some(Value::Unknown) => {}
                Some(Value::Known(value)) => prop_assert_eq!(read(), Some(value.clone()), "{}", text),
                None => prop_assert_eq!(read(), None, "{}", text),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// sh prints the entry of a trial as it was made, with any arguments we accept, and GRUB's parser takes it.
    #[test]
    fn sh_prints_the_entry_of_a_trial(args in prop::collection::vec(arg(), 0..6)) {
        let menu = grub_menu::menu(include_str!("grub/debian12-grub.cfg"));
        let default = grub_menu::chosen(&menu, "0").unwrap();
        let of = trial::Trial::new(1, "boot", "/vmlinuz", &args, "");
        let line: Vec<_> = trial::line(&of).iter().map(ToString::to_string).collect();
        let entry = default.again("A title", "an-id", OURS, &line.join(" ")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        fs::write(&path, trial::script(&entry, &[]).unwrap()).unwrap();
        let output = run(Command::new("sh").env_clear().arg(&path), "dash");
        prop_assert!(output.status.success() && output.stderr.is_empty());
        prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), entry.clone());
        fs::write(&path, &entry).unwrap();
        prop_assert!(run(Command::new("grub-script-check").arg(&path), "grub-common").status.success());
        let made = grub_menu::menu(&entry);
        prop_assert!(made[0].linux().unwrap().1.contains_run(&trial::line(&of)));
        // An entry whose kernel is gone is not printed.
        fs::write(&path, trial::script(&entry, &["no-such-kernel".to_owned()]).unwrap()).unwrap();
        prop_assert!(run(Command::new("sh").arg(&path), "dash").stdout.is_empty());
    }

    /// What grub-editenv writes is read as it was meant.
    #[test]
    fn grub_editenv_agrees(values in prop::collection::btree_map("[a-z][a-z_]{0,6}", "[ -~\n\\\\]{0,20}", 0..5)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grubenv");
        let editenv = |words: &[String]| {
            let output = run(Command::new("grub-editenv").arg(&path).args(words), "grub-common");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        editenv(&["create".into()]);
        for (name, value) in &values {
            editenv(&["set".into(), format!("{name}={value}")]);
        }
        let block = Environment::parse(&fs::read(&path).unwrap()).unwrap();
        for (name, value) in &values {
            prop_assert_eq!(block.get(name).unwrap_or_default(), value);
        }
    }
}

/// Runs grub-mkconfig for the machine below `root` and returns its grub.cfg.
fn mkconfig(root: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grub/mkconfig.sh");
    let output = run(Command::new("sh").arg(script).arg(root), "dash");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "needs packages grub-common, grub2-common and util-linux:\n{told}");
    let path = root.join("boot/grub/grub.cfg");
    let checked = run(Command::new("grub-script-check").arg(&path), "grub-common");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    fs::read_to_string(path).unwrap()
}

#[test]
fn grub_mkconfig_gives_normal_entries_our_arguments() {
    let machine = tempfile::tempdir().unwrap();
    let drop_ins = machine.path().join("etc/default/grub.d");
    fs::create_dir_all(&drop_ins).unwrap();
    fs::write(drop_ins.join(CLOUD), CLOUD_TEXT).unwrap();
    let before = grub::entries(&mkconfig(machine.path()));

    let ours = args(&format!("{OURS} odd.Name-1=a[1](2)~%+@/:= empty="));
    let text = grub::drop_in(&ours);
    fs::write(drop_ins.join(DROP_IN), &text).unwrap();
    let after = grub::entries(&mkconfig(machine.path()));

    let default = fs::read_to_string(machine.path().join("etc/default/grub")).unwrap();
    let predicted = grub::predicted(&default, &[(CLOUD, CLOUD_TEXT), (DROP_IN, &text)]).unwrap();
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(after.iter().filter(|entry| entry.recovery).count(), 1);
    for (before, after) in before.iter().zip(&after) {
        if after.recovery {
            assert_eq!(after, before);
            assert!(ours.iter().all(|arg| after.args.values(arg.name()).is_empty()), "{after:?}");
            continue;
        }
        let tokens: Vec<_> = after.args.tokens().collect();
        let expected: Vec<_> = ["root=/dev/vda1", "ro"].into_iter().chain(predicted.tokens()).collect();
        assert_eq!(tokens, expected);
        assert!(after.args.contains_run(&ours));
        assert!(ours.iter().all(|arg| after.args.values(arg.name()) == [arg.value()]), "{after:?}");
        let mut without = after.args.clone();
        without.unset(&ours);
        assert_eq!(without.tokens().collect::<Vec<_>>(), before.args.tokens().collect::<Vec<_>>());
        assert!(after.args.to_string().len() < kernel_args::COMMAND_LINE_SIZE);
    }

    fs::remove_file(drop_ins.join(DROP_IN)).unwrap();
    assert_eq!(grub::entries(&mkconfig(machine.path())), before);
}
