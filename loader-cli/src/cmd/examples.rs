//! Examples, at the end of the long help of each command and in its page of the manual.
//!
//! After a line that says what is done come the commands, indented by four spaces.

/// What most users want.
pub(super) const ALL: &str = "\
Examples:
  File and line for a trace of this machine's kernel:
    dmesg | lineinfo decode
  A table of a kernel that is small, and exact in stack traces:
    lineinfo build vmlinux -o kernel.lineinfo --profile calls
  Lines in the traces that the running kernel prints:
    lineinfo load --auto";

/// Of `lineinfo build`.
pub(super) const BUILD: &str = "\
Examples:
  Exact at every byte of text, from the -dbg package of a distribution:
    lineinfo build /usr/lib/debug/boot/vmlinux-6.12.0 -o kernel.lineinfo
  For stack traces alone, with the inlined functions; less than half as large:
    lineinfo build vmlinux -o kernel.lineinfo --profile calls
  A module:
    lineinfo build fs/xfs/xfs.ko -o xfs.lineinfo
  Every kernel and module of a directory, by build-id:
    lineinfo build /usr/lib/debug/lib/modules/6.12.0 --store /usr/lib/lineinfo
  The same, where the module for stock kernels looks for it, from the first trace on:
    lineinfo build vmlinux /usr/lib/debug/lib/modules/6.12.0 --firmware /lib/firmware/lineinfo";

/// Of `lineinfo verify`.
pub(super) const VERIFY: &str = "\
Examples:
  Every row, call and trap, against the addr2line crate:
    lineinfo verify kernel.lineinfo --against vmlinux
  A million bytes of text besides, against LLVM:
    lineinfo verify kernel.lineinfo --against vmlinux --random 1000000 --oracle llvm-symbolizer";

/// Of `lineinfo dump`.
pub(super) const DUMP: &str = "\
Examples:
  Build-id, sizes and sections:
    lineinfo dump kernel.lineinfo
  Every row, as text:
    lineinfo dump kernel.lineinfo --rows
  Which directories of the sources take its bytes, as text and as a picture:
    lineinfo dump kernel.lineinfo --tree
    lineinfo dump kernel.lineinfo --svg kernel.svg";

/// Of `lineinfo lookup`.
pub(super) const LOOKUP: &str = "\
Examples:
  An instruction of the image as it was linked:
    lineinfo lookup kernel.lineinfo 0xffffffff81234567
  A line of a trace:
    lineinfo lookup kernel.lineinfo --return-addresses vfs_write+0xf8/0x450
  The same of the table that the running kernel has loaded:
    lineinfo lookup --device /dev/lineinfo --return-addresses vfs_write+0xf8/0x450";

/// Of `lineinfo decode`.
pub(super) const DECODE: &str = "\
Examples:
  A log of any kernel of which the debug package is installed:
    lineinfo decode oops.txt
  The log of this machine, as it grows:
    journalctl -k -f | lineinfo decode
  With tables that are kept in a directory:
    lineinfo decode --dir /srv/tables oops.txt
  All machines of a collector of syslog:
    tail -F /var/log/fleet.log | lineinfo decode --key host";

/// Of `lineinfo load`.
pub(super) const LOAD: &str = "\
Examples:
  The table of the running kernel:
    lineinfo load kernel.lineinfo
  The table of one of its modules:
    lineinfo load xfs.lineinfo --module xfs
  Those of the kernel and of all its modules, from the directories of tables:
    lineinfo load --auto
  What that would load, with tables of a directory of yours:
    lineinfo load --auto --dry-run --dir /srv/tables";

/// Of `lineinfo unload`.
pub(super) const UNLOAD: &str = "\
Examples:
  Free the memory of the kernel's table:
    lineinfo unload
  Of that of a module:
    lineinfo unload --module xfs
  Of all tables, those of modules too:
    lineinfo unload --auto";

/// Of `lineinfo status`.
pub(super) const STATUS: &str = "\
Examples:
  What the running kernel has loaded:
    lineinfo status
  What it has for a module:
    lineinfo status --module xfs
  Each change, as a line of JSON:
    lineinfo status --watch --json";

/// Of `lineinfo append`.
pub(super) const APPEND: &str = "\
Examples:
  A boot image that carries its table, for a kernel that boots with lineinfo=on:
    lineinfo append kernel.lineinfo --to /boot/vmlinuz-6.12.0";

/// Of `lineinfo strip`.
pub(super) const STRIP: &str = "\
Examples:
  The boot image as it was before:
    lineinfo strip /boot/vmlinuz-6.12.0";

/// Of `lineinfo sign`.
pub(super) const SIGN: &str = "\
Examples:
  For a kernel that boots with lineinfo.key= and the public key:
    openssl genpkey -algorithm ed25519 -out key.pem
    lineinfo sign kernel.lineinfo --key key.pem";

/// Of `lineinfo footer`.
pub(super) const FOOTER: &str = "\
Examples:
  What is appended to the kernel that boots:
    lineinfo footer /boot/vmlinuz-6.12.0";
