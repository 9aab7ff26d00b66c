//! What is read only where a profile asks for it, since it costs much.

use super::{FreeThread, Interface, processes, queues};
use crate::host::Read;

/// Facts of single knobs: nothing where they are not asked for.
#[derive(Debug, Default)]
pub struct Further {
    /// Network interfaces with their channels: a program for each.
    pub interfaces: Vec<Interface>,
    /// Threads of the kernel that are not bound to their CPUs: a file or two of each process.
    pub free_threads: Vec<FreeThread>,
}

/// Which of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Channels of network interfaces.
    pub channels: bool,
    /// Threads that can be moved.
    pub free_threads: bool,
}

impl Further {
    /// Reads what is asked for.
    pub fn read(host: &dyn Read, asked: Asked) -> Further {
        Further {
            interfaces: if asked.channels { queues::interfaces(host) } else { Vec::new() },
            free_threads: if asked.free_threads { processes::free_threads(host) } else { Vec::new() },
        }
    }
}
