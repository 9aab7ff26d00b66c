//! What is kept of a trial boot until it is confirmed or ended: `/var/lib/rtkvm-tune/trial.json`.

use super::kernel_args::KernelArg;
use serde::{Deserialize, Serialize};

/// The version of the file that this program writes and reads.
const VERSION: u32 = 1;

/// One trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    version: u32,
    /// Its name: the value of the marker argument on the line of its boot.
    pub run: String,
    /// When it was asked for, in seconds since the epoch.
    pub asked: u64,
    /// The boot it was asked for in.
    pub asked_boot: String,
    /// The kernel it boots, as GRUB names it.
    pub kernel: String,
    /// The arguments that are tried, as they are to be in the drop-in.
    arguments: Vec<String>,
    /// The boot that was its boot; `None` until that boot was seen.
    pub booted: Option<String>,
    /// Why that boot was not confirmed.
    pub failed: Option<String>,
}

impl Trial {
    /// A trial that has not been booted. Its name is another for other arguments, another entry or another boot.
    pub fn new(asked: u64, asked_boot: &str, kernel: &str, arguments: &[KernelArg], entry: &str) -> Trial {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let text = format!("{asked_boot}\n{entry}\n{}", arguments.join(" "));
        Trial {
            version: VERSION,
            run: sha1_smol::Sha1::from(text).digest().to_string()[..12].to_owned(),
            asked,
            asked_boot: asked_boot.to_owned(),
            kernel: kernel.to_owned(),
            arguments,
            booted: None,
            failed: None,
        }
    }

    /// The arguments that are tried.
    pub fn arguments(&self) -> Vec<KernelArg> {
        self.arguments.iter().filter_map(|text| KernelArg::parse(text).ok()).collect()
    }

    /// The argument that tells its boot from others: the kernel ignores a parameter of a module that it has not.
    pub fn marker(&self) -> KernelArg {
        KernelArg::new(MARKER, Some(&self.run)).expect("a name and a hash")
    }

    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Trial, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(format!("it is of version {version}; {VERSION} is known here")),
            None => return Err("it has no version".into()),
        }
        let trial: Trial = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let hash = |c: char| c.is_ascii_hexdigit();
        if trial.run.is_empty() || !trial.run.chars().all(hash) {
            return Err("its run is no hash".into());
        }
        match trial.arguments.iter().find_map(|text| KernelArg::parse(text).err()) {
            Some(error) => Err(error),
            None => Ok(trial),
        }
    }
}

/// The name of the marker argument.
pub const MARKER: &str = "rtkvm_tune.trial";

/// The name of the parameter that has a panicked kernel boot again.
pub const PANIC: &str = "panic";
/// Seconds from a panic of the trial's kernel to the next boot: enough to read the screen.
const PANIC_SECONDS: &str = "30";

/// What the line of the trial's boot has at its end: the arguments, one that has the machine boot again after a panic
/// unless they say so themselves, and the marker.
pub fn line(trial: &Trial) -> Vec<KernelArg> {
    let mut line = trial.arguments();
    if !line.iter().any(|argument| argument.name() == PANIC) {
        line.push(KernelArg::new(PANIC, Some(PANIC_SECONDS)).expect("a name and a number"));
    }
    line.push(trial.marker());
    line
}

/// The script in /etc/grub.d that prints the entry, as long as the files that it loads are there: GRUB would wait for
/// a key before an entry that it cannot load.
///
/// # Errors
/// The entry has the line that ends it.
pub fn script(entry: &str, files: &[String]) -> Result<String, String> {
    if entry.lines().any(|line| line == END) {
        return Err(format!("it has a line `{END}`"));
    }
    let there: String = files.iter().map(|name| format!("[ -e '/boot/{name}' ] || exit 0\n")).collect();
    Ok(format!(
        "#!/bin/sh\n\
         # Written by rtkvm-tune: the entry of a trial boot, which `grub-reboot` has GRUB boot once. It goes when the\n\
         # trial is confirmed or ended; changes are lost.\n\
         {there}cat <<'{END}'\n{entry}{END}\n"
    ))
}

const END: &str = "RTKVM_TUNE_TRIAL";

/// The file's text.
impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = serde_json::to_string_pretty(self).map_err(|_| std::fmt::Error)?;
        writeln!(f, "{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trial() -> Trial {
        let arguments = ["nosmt", "isolcpus=2-7"].map(|text| KernelArg::parse(text).unwrap());
        Trial::new(1_790_000_000, "1b0e", "/vmlinuz-1", &arguments, "menuentry")
    }

    #[test]
    fn is_another_for_another_boot() {
        let other = Trial::new(1_790_000_001, "1b0f", "/vmlinuz-1", &trial().arguments(), "menuentry");
        assert_ne!(trial().run, other.run);
        let later = Trial::new(1_790_000_001, "1b0e", "/vmlinuz-1", &trial().arguments(), "menuentry");
        assert_eq!(trial().run, later.run, "asked for once more");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let text = trial().to_string();
        for (ours, other) in [
            ("\"version\": 1", "\"version\": 2"),
            ("\"version\": 1,", ""),
            ("nosmt", "no smt"),
            ("isolcpus=2-7", "isolcpus=$(id)"),
            (trial().run.as_str(), "x y"),
            ("\"kernel\"", "\"colonel\""),
            ("}", ""),
        ] {
            let text = text.replace(ours, other);
            assert!(Trial::parse(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(booted in prop::option::of("[0-9a-f-]{0,36}"), failed in prop::option::of(".{0,40}")) {
            let trial = Trial { booted, failed, ..trial() };
            prop_assert_eq!(Trial::parse(&trial.to_string()), Ok(trial));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Trial::parse(&text);
        }
    }
}
