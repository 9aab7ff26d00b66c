//! The busy loop of `cargo xtask lab noise`: computes until it is killed, and never asks the kernel for anything.
//! The pause in it is for the emulator, which goes on to the next CPU at that instruction.

fn main() {
    loop {
        std::hint::spin_loop();
    }
}
