/// Lets large blocks go back to the kernel as soon as they are freed: glibc raises the size from
/// which it does so with each one freed (mallopt(3), `M_MMAP_THRESHOLD`), and would keep tens of
/// MiB that an attack took. Other C libraries do so anyway. Call it before there are threads.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: i32 = 1 << 20;
        // SAFETY: mallopt takes two integers and touches only the allocator's own settings.
        let _accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
