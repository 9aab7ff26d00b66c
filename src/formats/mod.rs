//! Layer 0: the text formats of the kernel, the boot loader and people. No I/O.

pub mod cpuset;
pub mod grub;
pub mod grub_menu;
pub mod grubenv;
pub mod kernel_args;
pub mod path;
pub mod shell_vars;
pub mod size;
pub mod thread;
pub mod time;
pub mod trial;

pub use cpuset::CpuSet;
pub use path::HostPath;
pub use size::Size;
pub use thread::Policy;
