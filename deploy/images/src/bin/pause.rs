//! The first process of every pod sandbox: it holds the pod's namespaces open, reaps the orphans of a shared
//! process namespace, and leaves when asked to.
#![allow(unsafe_code)] // sigwait and waitpid have no safe standard-library form, and this program links nothing else

fn main() {
    // SAFETY: the set is initialised by sigemptyset before it is read; all pointers are to live locals.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(&raw mut signals, signal);
        }
        // Blocked signals wait for sigwait; as process 1 the defaults would ignore SIGTERM altogether.
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        loop {
            let mut signal = 0;
            if libc::sigwait(&raw const signals, &raw mut signal) != 0 {
                continue;
            }
            if signal != libc::SIGCHLD {
                return;
            }
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}
