//! Parameters of the kernel's modules, built in or loaded, as the running kernel shows them.

use crate::formats::HostPath;
use crate::host::{Read, ReadError};

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The module.
    pub module: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value and whether it can be written; or why it cannot be read.
    pub value: Result<(String, bool), ReadError>,
}

/// The modules that are looked at, and their parameters.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    /// Those that are there.
    present: Vec<&'static str>,
    /// Those among them that are part of the kernel's image.
    built_in: Vec<&'static str>,
    /// The parameters.
    parameters: Vec<Parameter>,
}

/// What is looked at.
const KNOWN: [(&str, &[&str]); 4] = [
    ("rcutree", &["nohz_full_patience_delay"]),
    ("kvm", &["kvmclock_periodic_sync", "nx_huge_pages", "halt_poll_ns", "min_timer_period_us"]),
    ("kvm_intel", &["ple_gap", "enable_apicv"]),
    ("kvm_amd", &["pause_filter_count", "pause_filter_thresh", "avic"]),
];

/// Where a parameter is (Linux ABI/stable/sysfs-module).
pub fn path(module: &str, name: &str) -> HostPath {
    HostPath::new(format!("/sys/module/{module}/parameters/{name}"))
}

impl Modules {
    /// Reads them.
    pub fn read(host: &dyn Read) -> Modules {
        let mut modules = Modules::default();
        for (module, names) in KNOWN {
            for name in names {
                let value = host.file(&path(module, name));
                let value = value.map(|file| (file.text().trim().to_owned(), file.mode & 0o200 != 0));
                modules.parameters.push(Parameter { module, name, value });
            }
            let there = modules.parameters.iter().any(|own| own.module == module && own.value.is_ok());
            if there {
                modules.present.push(module);
                // Only what was loaded says how far its loading is.
                let loaded = host.file(&HostPath::new(format!("/sys/module/{module}/initstate"))).is_ok();
                if !loaded {
                    modules.built_in.push(module);
                }
            }
        }
        modules
    }

    /// Whether the module is there, built in or loaded.
    pub fn has(&self, module: &str) -> bool {
        self.present.contains(&module)
    }

    /// Whether it is part of the kernel's image.
    pub fn is_built_in(&self, module: &str) -> bool {
        self.built_in.contains(&module)
    }

    /// A parameter's value and whether it can be written.
    ///
    /// # Errors
    /// Why it cannot be read; [`ReadError::Untold`] for one that is not looked at.
    pub fn parameter(&self, module: &str, name: &str) -> Result<(&str, bool), ReadError> {
        let found = self.parameters.iter().find(|own| own.module == module && own.name == name);
        match found.map(|own| &own.value) {
            Some(Ok((value, writable))) => Ok((value, *writable)),
            Some(Err(error)) => Err(*error),
            None => Err(ReadError::Untold),
        }
    }
}
