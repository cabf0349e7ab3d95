//! What the operating system is told about this process. The only place of this package with `unsafe`: a few calls of the C
//! library that take and return plain integers.
#![expect(
    unsafe_code,
    reason = "umask, mallopt, prctl, setrlimit and sysconf have no safe wrapper in the standard library"
)]

/// Files and directories made from here on are for this account alone (T26).
pub fn private_files() {
    // SAFETY: umask takes an integer, changes this process only and cannot fail.
    unsafe {
        libc::umask(0o077);
    }
}

/// No core dumps: they would hold passwords and events. No new privileges through any program that is started.
pub fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read their arguments only; the struct outlives the call. A refusal leaves things as they were.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
}

/// Keeps memory small without paying for it in page faults. glibc raises its threshold for `mmap` whenever a big block is
/// freed, up to 32 MiB; after that, large buffers live in arenas of many threads, which keep the most that they ever held.
/// Blocks above 2 MiB go back to the system at once; below, an arena hands the same pages out again. A threshold of 128 KiB
/// gave every batch fresh pages: 5.8 CPU-seconds per million events in `bench e2e` beside 4.8, for 3 MiB less at the peak.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn frugal_memory() {
    const MMAP_THRESHOLD: libc::c_int = 2 * 1024 * 1024;
    const TRIM_THRESHOLD: libc::c_int = 1024 * 1024;
    const ARENAS: libc::c_int = 4;
    // SAFETY: mallopt takes two integers; called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn frugal_memory() {}

/// Figures of this process, from /proc.
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: u64,
    pub threads: u64,
    /// Seconds since 1970.
    pub started: f64,
}

impl Process {
    /// `None` where there is no /proc.
    pub fn look() -> Option<Process> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything; fields are counted behind it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = ticks_per_second() as f64;
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(Process {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            resident_bytes: field(24)? * page_bytes(),
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            threads: field(20)?,
            started: boot + field(22)? as f64 / ticks,
        })
    }
}

fn ticks_per_second() -> i64 {
    // SAFETY: sysconf takes and returns integers.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1)
}

fn page_bytes() -> u64 {
    // SAFETY: as above.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64
}
