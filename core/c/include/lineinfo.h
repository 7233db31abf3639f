/* SPDX-License-Identifier: MIT
 *
 * The C face of lineinfo-core, and the ABI of /dev/lineinfo.
 *
 * Made by cbindgen from core/c/src and core/src/uapi.rs; do not edit. To make it again:
 *
 *     LINEINFO_HEADER=overwrite cargo test -p lineinfo-tests --test c_header
 *
 * Sizes and lengths are in bytes, addresses are those of machine code, integers have the byte order
 * of the machine, texts are UTF-8. A function that returns int returns 0 or minus one of the error
 * numbers, unless it says otherwise. A pointer is not null and is aligned, unless it says otherwise.
 */

#ifndef LINEINFO_H
#define LINEINFO_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stddef.h>
#include <stdint.h>
#endif

/**
 * The error numbers of the device, those of Linux (include/uapi/asm-generic/errno*.h).
 */

/**
 * Not privileged, or late loading is refused (lineinfo=never).
 */
#define LINEINFO_EPERM 1

/**
 * No such module.
 */
#define LINEINFO_ENOENT 2

/**
 * Not a lineinfo blob, of another version, or malformed.
 */
#define LINEINFO_ENOEXEC 8

/**
 * The descriptor was not opened for this.
 */
#define LINEINFO_EBADF 9

/**
 * No memory for the table.
 */
#define LINEINFO_ENOMEM 12

/**
 * Somebody else is loading, or the old table is still being read.
 */
#define LINEINFO_EBUSY 16

/**
 * Not a request of this device, or out of turn.
 */
#define LINEINFO_EINVAL 22

/**
 * The user has as many files or connections of the device open as one user may.
 */
#define LINEINFO_EMFILE 24

/**
 * No such ioctl of this device.
 */
#define LINEINFO_ENOTTY 25

/**
 * The blob is larger than lineinfo.max= allows.
 */
#define LINEINFO_EFBIG 27

/**
 * Nothing is loaded.
 */
#define LINEINFO_ENODATA 61

/**
 * The checksum does not match.
 */
#define LINEINFO_EBADMSG 74

/**
 * This file made no request for so long that another one has taken the device over.
 */
#define LINEINFO_ETIMEDOUT 110

/**
 * The blob was built for another kernel.
 */
#define LINEINFO_ESTALE 116

/**
 * The blob has no signature of the key that this kernel demands.
 */
#define LINEINFO_EKEYREJECTED 129

/**
 * What a slot is doing.
 */

/**
 * It holds no table.
 */
#define LINEINFO_STATE_EMPTY 0

/**
 * It holds a table.
 */
#define LINEINFO_STATE_LOADED 1

/**
 * It holds no table and takes none (lineinfo=never).
 */
#define LINEINFO_STATE_NEVER 2

/**
 * How rows are encoded.
 */

/**
 * Arrays of fixed-size fields: encoding::flat.
 */
#define LINEINFO_ENCODING_FLAT 1

/**
 * Blocks of 64 rows, LEB128 differences: encoding::delta.
 */
#define LINEINFO_ENCODING_DELTA 2

/**
 * Blocks of two bit streams, codes fitted to the image: encoding::packed.
 */
#define LINEINFO_ENCODING_PACKED 3

/**
 * What the rows are exact for.
 */

/**
 * Exact at every byte of text.
 */
#define LINEINFO_PROFILE_FULL 1

/**
 * Exact at return addresses and traps, approximate elsewhere.
 */
#define LINEINFO_PROFILE_CALLS 2

/**
 * The kinds of Address that a struct lineinfo_lookup asks for.
 */

/**
 * The instruction itself (Address::Exact).
 */
#define LINEINFO_ADDRESS_EXACT 0

/**
 * A call returns to it (Address::Return).
 */
#define LINEINFO_ADDRESS_RETURN 1

/**
 * An instruction that traps by design (Address::Trap).
 */
#define LINEINFO_ADDRESS_TRAP 2

/**
 * What the address of a struct lineinfo_lookup is counted from.
 */

/**
 * From 0: a run-time address, of the kernel or of a module. The answer tells where they
 * are, so it is for who may see addresses.
 */
#define LINEINFO_BASE_RUNTIME 0

/**
 * From _text of the file's Target, for anybody: the answer is the same wherever the
 * kernel is.
 */
#define LINEINFO_BASE_TEXT 1

/**
 * What a request asks for.
 */

/**
 * Open; arg is LINEINFO_SOCKET_OPEN_READ or LINEINFO_SOCKET_OPEN_WRITE, or both.
 */
#define LINEINFO_SOCKET_OP_OPEN 1

/**
 * Write the payload; the reply's value is how many bytes were taken.
 */
#define LINEINFO_SOCKET_OP_WRITE 2

/**
 * Read the status as text, from byte arg on; the payload of the reply.
 */
#define LINEINFO_SOCKET_OP_READ 3

/**
 * The ioctl with number arg (LINEINFO_IOC_*); its argument is the payload, in the
 * directions that the number says. One that is only read need not be sent.
 */
#define LINEINFO_SOCKET_OP_IOCTL 4

/**
 * The requests of the device.
 * The numbers need <sys/ioctl.h>, or <linux/ioctl.h> in a kernel.
 */

/**
 * What the slot holds.
 */
#define LINEINFO_IOC_STATUS _IOR(LINEINFO_IOCTL_TYPE, 0, struct lineinfo_status)

/**
 * Succeeds once the blob that was written to this file is published; otherwise says why it is
 * not.
 */
#define LINEINFO_IOC_COMMIT _IO(LINEINFO_IOCTL_TYPE, 1)

/**
 * Empties the slot and frees its memory.
 */
#define LINEINFO_IOC_UNLOAD _IO(LINEINFO_IOCTL_TYPE, 2)

/**
 * File and line of an address, and the functions that are inlined there: by run-time address for
 * who may see those, by offset from _text for anybody.
 */
#define LINEINFO_IOC_LOOKUP _IOWR(LINEINFO_IOCTL_TYPE, 3, struct lineinfo_lookup)

/**
 * Whose table this open file is about: that of the kernel, or of a module. The argument comes
 * back as it was.
 */
#define LINEINFO_IOC_TARGET _IOWR(LINEINFO_IOCTL_TYPE, 4, struct lineinfo_target)

/**
 * Discards what was written to this file, refused or not, so that another blob can follow. A
 * table that was published stays.
 */
#define LINEINFO_IOC_ABORT _IO(LINEINFO_IOCTL_TYPE, 5)


/**
 * The size of a table in units of 8 bytes.
 */
#define LINEINFO_TABLE_WORDS 20

/**
 * To be added to the kind of an address that was found on a stack and may be no return address (?
 * in a trace of x86): the answer is then not called exact where a call would have to be there.
 */
#define LINEINFO_ADDRESS_UNRELIABLE 256

/**
 * A table may come late only.
 */
#define LINEINFO_POLICY_OFF 0

/**
 * A table may come at boot, from the image, and late.
 */
#define LINEINFO_POLICY_ON 1

/**
 * A table comes at no time.
 */
#define LINEINFO_POLICY_NEVER 2

/**
 * Tables are taken from anybody, signed or not.
 */
#define LINEINFO_TRUST_ANYBODY 0

/**
 * Tables are taken that the key of the configuration has signed.
 */
#define LINEINFO_TRUST_KEY 1

/**
 * No table is taken: signatures are demanded, and there is no key to verify them with.
 */
#define LINEINFO_TRUST_NOBODY 2

/**
 * Something that was asked for is refused. The levels are those of syslog.
 */
#define LINEINFO_LEVEL_ERROR 3

/**
 * Something is not as it should be.
 */
#define LINEINFO_LEVEL_WARNING 4

/**
 * What goes on.
 */
#define LINEINFO_LEVEL_INFO 6

/**
 * The caller may load and unload.
 */
#define LINEINFO_CALLER_MAY_LOAD 1

/**
 * The caller may ask for run-time addresses, whose answers tell where the kernel is.
 */
#define LINEINFO_CALLER_MAY_SEE_ADDRESSES 2

/**
 * The unit of the memory that the device asks for, in bytes; a kernel with larger pages rounds up.
 */
#define LINEINFO_PAGE_BYTES 4096

/**
 * The size of a device in units of 8 bytes.
 */
#define LINEINFO_DEVICE_WORDS 25

/**
 * The size of an open file in units of 8 bytes.
 */
#define LINEINFO_FILE_WORDS 11

/**
 * The size of a slot in units of 8 bytes.
 */
#define LINEINFO_SLOT_WORDS 35

/**
 * The version of the format that this crate reads and writes.
 *
 * History: 1, the first.
 */
#define LINEINFO_FORMAT_VERSION 1

/**
 * Longest build-id that fits, in bytes (a SHA-1; ld --build-id=md5 makes 16).
 */
#define LINEINFO_BUILD_ID_MAX 20

/**
 * The region is init text: freed after boot, and its table with it.
 */
#define LINEINFO_REGION_INIT 1

/**
 * The type byte of the ioctl numbers; free in Linux's ioctl-number.rst as of 6.12.
 */
#define LINEINFO_IOCTL_TYPE 247

/**
 * Longest name of a module, in bytes (MODULE_NAME_LEN of 64-bit Linux, without the zero).
 */
#define LINEINFO_MODULE_NAME_MAX 55

/**
 * Room for the name of a module and a zero after it, in bytes.
 */
#define LINEINFO_MODULE_NAME_SIZE 56

/**
 * Room for the reason of a refusal in a struct lineinfo_status, in bytes.
 */
#define LINEINFO_REASON_BYTES 176

/**
 * Longest text of a struct lineinfo_status, in bytes.
 */
#define LINEINFO_STATUS_TEXT_MAX 400

/**
 * struct lineinfo_lookup found a location.
 */
#define LINEINFO_LOOKUP_FOUND 1

/**
 * The location found is approximate.
 */
#define LINEINFO_LOOKUP_APPROXIMATE 2

/**
 * Room for the name of a function in a struct lineinfo_lookup, in bytes: no name is longer.
 */
#define LINEINFO_FUNCTION_BYTES 512

/**
 * Open for status and look-ups.
 */
#define LINEINFO_SOCKET_OPEN_READ 1

/**
 * Open for load and unload: exclusive and privileged.
 */
#define LINEINFO_SOCKET_OPEN_WRITE 2

/**
 * Largest payload of a request or reply, in bytes.
 */
#define LINEINFO_SOCKET_PAYLOAD_MAX (64 * 1024)

/**
 * A table that lineinfo_parse made: a pointer to its blob, and what was found in it.
 *
 * The caller gives it a place and may copy it. The contents are those of the library.
 */
struct lineinfo_table {
        /**
         * Not for the caller.
         */
        uint64_t opaque[LINEINFO_TABLE_WORDS];
};

/**
 * What the header of a table says.
 */
struct lineinfo_facts {
        /**
         * Link-time address of _text; 0 for a relocatable module.
         */
        uint64_t text_start;
        /**
         * Bytes from _text to the end of the last region.
         */
        uint64_t text_len;
        /**
         * Size of the blob in bytes.
         */
        uint32_t size;
        /**
         * Number of rows, gaps included.
         */
        uint32_t rows;
        /**
         * Number of files.
         */
        uint32_t files;
        /**
         * Number of files whose rows are exact; those of the files after them are exact nowhere.
         */
        uint32_t exact_files;
        /**
         * ELF machine number (e_machine) of the image that the table describes.
         */
        uint16_t machine;
        /**
         * How the rows are encoded: one of LINEINFO_ENCODING_*.
         */
        uint8_t encoding;
        /**
         * What the rows are exact for: one of LINEINFO_PROFILE_*.
         */
        uint8_t profile;
        /**
         * Length of the build-id in bytes, 0 if the image has none.
         */
        uint8_t build_id_len;
        /**
         * The build-id of the image, padded with zeros.
         */
        uint8_t build_id[LINEINFO_BUILD_ID_MAX];
        /**
         * Zero.
         */
        uint8_t reserved[7];
};

/**
 * One text section of a table.
 */
struct lineinfo_region {
        /**
         * Start of the section, in bytes from _text.
         */
        uint64_t start;
        /**
         * Its length in bytes.
         */
        uint32_t len;
        /**
         * Number of its rows.
         */
        uint32_t rows;
        /**
         * LINEINFO_REGION_INIT for init text, which is freed after boot; else 0.
         */
        uint32_t flags;
        /**
         * Length of its name in bytes.
         */
        uint32_t name_len;
        /**
         * Its name: UTF-8 without a zero at its end. It is in the blob, and valid as long as that is.
         */
        const char *name;
};

/**
 * A footer that was found in a file.
 */
struct lineinfo_footer {
        /**
         * Length of the image before it, in bytes.
         */
        uint64_t image_len;
        /**
         * Where pad and blob end, and the footer begins, in bytes.
         */
        uint64_t end;
        /**
         * Size of pad and blob in bytes; they begin where the image ends.
         */
        uint32_t payload_size;
        /**
         * CRC-32 of pad and blob.
         */
        uint32_t crc32;
};

/**
 * The slot for the table of the kernel, or of a module. It stays where it is.
 */
struct lineinfo_slot {
        /**
         * Not for the caller.
         */
        uint64_t opaque[LINEINFO_SLOT_WORDS];
};

/**
 * The device. The kernel gives it a place and a lock that may sleep, and holds the lock in every call
 * that takes the device.
 */
struct lineinfo_device {
        /**
         * Not for the caller.
         */
        uint64_t opaque[LINEINFO_DEVICE_WORDS];
};

/**
 * What the device is told at boot.
 */
struct lineinfo_config {
        /**
         * The largest blob taken, in bytes.
         */
        uint64_t max_bytes;
        /**
         * How long a file that is open for writing may make no request before the next opener can take
         * the device over, in milliseconds.
         */
        uint64_t idle_ms;
        /**
         * When a table may come: one of LINEINFO_POLICY_*.
         */
        uint32_t policy;
        /**
         * Whose tables are taken: one of LINEINFO_TRUST_*.
         */
        uint32_t trust;
        /**
         * The Ed25519 public key for LINEINFO_TRUST_KEY.
         */
        uint8_t key[32];
};

/**
 * Who opens the device.
 */
struct lineinfo_caller {
        /**
         * Its user.
         */
        uint32_t uid;
        /**
         * Its process; 0 for the kernel itself.
         */
        uint32_t pid;
        /**
         * What it may do: LINEINFO_CALLER_*, added.
         */
        uint32_t rights;
};

/**
 * An open file of the device.
 */
struct lineinfo_file {
        /**
         * Not for the caller.
         */
        uint64_t opaque[LINEINFO_FILE_WORDS];
};

/**
 * The argument of LINEINFO_IOC_STATUS, 232 bytes; the numbers are zero where nothing is loaded.
 */
struct lineinfo_status {
        /**
         * A LINEINFO_STATE_*.
         */
        uint32_t state;
        /**
         * Number of rows.
         */
        uint32_t rows;
        /**
         * Number of files.
         */
        uint32_t files;
        /**
         * LINEINFO_E* of what was last refused to this slot, 0 if nothing was.
         */
        uint32_t last_errno;
        /**
         * Size of the blob in bytes.
         */
        uint64_t bytes;
        /**
         * Memory taken for it in bytes, whole pages.
         */
        uint64_t memory;
        /**
         * LINEINFO_ENCODING_*.
         */
        uint8_t encoding;
        /**
         * LINEINFO_PROFILE_*.
         */
        uint8_t profile;
        /**
         * Length of the build-id in bytes.
         */
        uint8_t build_id_len;
        /**
         * Zero.
         */
        uint8_t reserved;
        /**
         * Build-id of the table, or, where nothing is loaded, of the kernel, which a table must have.
         */
        uint8_t build_id[LINEINFO_BUILD_ID_MAX];
        /**
         * Why it was refused: UTF-8, zeros after it; cut to what fits.
         */
        uint8_t last_reason[LINEINFO_REASON_BYTES];
};

/**
 * A part of a message whose signature is verified.
 */
struct lineinfo_part {
        /**
         * Its bytes.
         */
        const uint8_t *bytes;
        /**
         * How many they are.
         */
        size_t size;
};

/**
 * What a table of an image must be, and where the image is.
 */
struct lineinfo_expected {
        /**
         * Run-time minus link-time addresses, in bytes.
         */
        uint64_t slide;
        /**
         * ELF machine number (e_machine) of the image.
         */
        uint16_t machine;
        /**
         * Length of its build-id in bytes; an image without one takes no table.
         */
        uint8_t build_id_len;
        /**
         * Its build-id.
         */
        uint8_t build_id[LINEINFO_BUILD_ID_MAX];
        /**
         * Zero.
         */
        uint8_t reserved;
};

/**
 * The argument of LINEINFO_IOC_LOOKUP, 800 bytes.
 *
 * It is about one of the functions at an address. The one of level 0 is the innermost, whose location is
 * that of the address. After its answer, who wants the others asks for each level below levels. If another
 * table was published between two requests, checksum differs, and the answers do not belong together.
 */
struct lineinfo_lookup {
        /**
         * In: an address, in bytes from the LINEINFO_BASE_*.
         */
        uint64_t address;
        /**
         * In: an LINEINFO_ADDRESS_*.
         */
        uint32_t kind;
        /**
         * In: an LINEINFO_BASE_*.
         */
        uint32_t base;
        /**
         * In: which function, from 0 on, the innermost.
         */
        uint16_t level;
        /**
         * Out: how many functions there are, inlined ones and last the physical function; 0 if the table
         * does not know them there.
         */
        uint16_t levels;
        /**
         * Out: the checksum of the table that answered (blob::Header::crc32).
         */
        uint32_t checksum;
        /**
         * Out: 0 for a miss, or LINEINFO_LOOKUP_FOUND, with or without LINEINFO_LOOKUP_APPROXIMATE.
         */
        uint32_t result;
        /**
         * Out: the line, from 1.
         */
        uint32_t line;
        /**
         * Out: the file, UTF-8, padded with zeros; cut to what fits.
         */
        uint8_t file[256];
        /**
         * Out: the name of an inlined function, UTF-8, padded with zeros; empty for the physical function,
         * whose name is that of the symbol.
         */
        uint8_t function[LINEINFO_FUNCTION_BYTES];
};

/**
 * The argument of LINEINFO_IOC_TARGET, 56 bytes.
 *
 * A file that was just opened is about the kernel. What was written before is discarded with the
 * file, so the target comes first.
 */
struct lineinfo_target {
        /**
         * The name of a module, zeros after it; none for the kernel.
         */
        uint8_t name[LINEINFO_MODULE_NAME_SIZE];
};

/**
 * The head of a request, 12 bytes.
 */
struct lineinfo_socket_request {
        /**
         * An LINEINFO_SOCKET_OP_*.
         */
        uint32_t op;
        /**
         * See LINEINFO_SOCKET_OP_*.
         */
        uint32_t arg;
        /**
         * Length of the payload in bytes, at most LINEINFO_SOCKET_PAYLOAD_MAX.
         */
        uint32_t len;
};

/**
 * The head of a reply, 12 bytes.
 */
struct lineinfo_socket_reply {
        /**
         * 0, or an LINEINFO_E*.
         */
        uint32_t error;
        /**
         * See LINEINFO_SOCKET_OP_*.
         */
        uint32_t value;
        /**
         * Length of the payload in bytes, at most LINEINFO_SOCKET_PAYLOAD_MAX.
         */
        uint32_t len;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Checks a blob and makes a table of it.
 *
 * After it a look-up cannot fail, only miss, and cannot read outside the blob. It allocates
 * nothing and takes time in proportion to the blob: about a millisecond for that of a whole kernel.
 *
 * Returns 0 and writes table, or minus an errno with the reason as text: LINEINFO_EBADMSG for
 * a checksum that does not match, LINEINFO_ENOEXEC for a blob that is cut off, of another version,
 * or malformed.
 *
 * The caller promises:
 *
 * blob is valid for reads of blob_size bytes, which nobody changes as long as the table is used.
 * reason is valid for writes of reason_size bytes. A pointer may be null if its size is 0.
 */
int lineinfo_parse(struct lineinfo_table *table,
                   const uint8_t *blob,
                   size_t blob_size,
                   char *reason,
                   size_t reason_size);

/**
 * Writes what the header of a table says.
 */
void lineinfo_facts(const struct lineinfo_table *table, struct lineinfo_facts *facts);

/**
 * Writes the facts of a text section; sections are numbered from 0, by ascending start.
 *
 * Returns 0, or minus LINEINFO_ENOENT if the table has no section of that number.
 */
int lineinfo_region(const struct lineinfo_table *table,
                    uint32_t number,
                    struct lineinfo_region *region);

/**
 * Writes the text of an address: " (file:line)", or " (file:~line)" if the table is only
 * approximate there.
 *
 * address is one at run time, as is text_start, the address of _text. kind is one of
 * LINEINFO_ADDRESS_*, with or without LINEINFO_ADDRESS_UNRELIABLE. For any context; takes less
 * than 1 KiB of stack.
 *
 * Returns the length of what was written in bytes, without the zero that ends it: 0 if the table
 * does not know the address, or for a kind that this version does not know.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_text(const struct lineinfo_table *table,
                     uint64_t text_start,
                     uint32_t kind,
                     uint64_t address,
                     char *text,
                     size_t text_size);

/**
 * Writes the text of a function that is inlined at an address: " name (file:line) [inline]". level 0 is the
 * innermost, 1 the one it is inlined into, and so on.
 *
 * A trace prints a line for each, before that of the frame, which then has the text of
 * lineinfo_physical_text in place of that of lineinfo_text. For any context; takes less than 1 KiB of
 * stack.
 *
 * Returns the length of what was written in bytes, without the zero that ends it: 0 if there is no inlined
 * function of that level, or the table does not know.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_inlined_text(const struct lineinfo_table *table,
                             uint64_t text_start,
                             uint32_t kind,
                             uint64_t address,
                             uint32_t level,
                             char *text,
                             size_t text_size);

/**
 * Writes the text of the physical function at an address: " (file:line)", where in the function of the symbol
 * the address is, whatever is inlined there. For any context; takes less than 1 KiB of stack.
 *
 * Returns the length of what was written in bytes, without the zero that ends it: 0 if the table has no inlined
 * functions, or does not know the address; there may be one from lineinfo_text then.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_physical_text(const struct lineinfo_table *table,
                              uint64_t text_start,
                              uint32_t kind,
                              uint64_t address,
                              char *text,
                              size_t text_size);

/**
 * Checks every row of a table, and that each can be looked up and printed.
 *
 * For whoever makes, stores or sends tables. A kernel does not need it: it is safe after
 * lineinfo_parse, which takes a hundredth of the time.
 *
 * Returns 0, or minus LINEINFO_ENOEXEC with the reason as text.
 *
 * The caller promises:
 *
 * reason is valid for writes of reason_size bytes, or reason_size is 0.
 */
int lineinfo_check_rows(const struct lineinfo_table *table, char *reason, size_t reason_size);

/**
 * Size in bytes of the blob of a table without the rows of init text; that of the blob if it has
 * none.
 */
size_t lineinfo_size_without_init(const struct lineinfo_table *table);

/**
 * Writes the blob of a table without the rows of init text, for a kernel that has freed that text,
 * and makes a table of what is written, which needs no check.
 *
 * to_size is at least lineinfo_size_without_init.
 *
 * Returns 0 and writes smaller, or minus LINEINFO_ENOMEM if to_size is too small.
 *
 * The caller promises:
 *
 * to is valid for writes of to_size bytes, apart from the blob of table, and nobody changes
 * them as long as smaller is used.
 */
int lineinfo_copy_without_init(const struct lineinfo_table *table,
                               uint8_t *to,
                               size_t to_size,
                               struct lineinfo_table *smaller);

/**
 * Removes the rows of init text from a blob in its own memory, for a kernel that has freed that
 * text, and makes table, which is the table of that blob, one of what is left.
 *
 * lineinfo_facts then says how many bytes the blob has; the memory after them is free.
 *
 * Returns 0, or minus LINEINFO_EINVAL if the table is not one of this blob.
 *
 * The caller promises:
 *
 * blob is valid for writes of blob_size bytes. Nobody uses the table or a copy of it during the
 * call, nor a copy after it.
 */
int lineinfo_remove_init(struct lineinfo_table *table, uint8_t *blob, size_t blob_size);

/**
 * Looks for a blob at the end of a boot image of file_len bytes.
 *
 * file goes to lineinfo_port_read as it is, which reads into pieces of buffer; a page is a
 * good size. Where there is a footer, it says which payload_size bytes of the file, from
 * image_len on, are to be read and given to lineinfo_footer_blob.
 *
 * Returns 1 and writes footer if there is one, 0 if there is none, and minus an errno with the
 * reason as text: LINEINFO_ENOEXEC for a footer that cannot be true, LINEINFO_ENODATA if the
 * file cannot be read.
 *
 * The caller promises:
 *
 * buffer is valid for writes of buffer_size bytes, reason for writes of reason_size bytes; a
 * pointer may be null if its size is 0.
 */
int lineinfo_footer_find(void *file,
                         uint64_t file_len,
                         uint8_t *buffer,
                         size_t buffer_size,
                         struct lineinfo_footer *footer,
                         char *reason,
                         size_t reason_size);

/**
 * Checks the payload of a footer, and finds the blob in it.
 *
 * payload holds the payload_size bytes that the footer names. The blob begins blob_start
 * bytes into them, ends with them, and is still to be given to lineinfo_parse.
 *
 * Returns 0 and writes blob_start, or minus an errno with the reason as text: LINEINFO_EBADMSG
 * for another checksum, LINEINFO_ENOEXEC for bytes that hold no blob.
 *
 * The caller promises:
 *
 * payload is valid for reads of payload_size bytes, reason for writes of reason_size bytes;
 * a pointer may be null if its size is 0.
 */
int lineinfo_footer_blob(const struct lineinfo_footer *footer,
                         const uint8_t *payload,
                         size_t payload_size,
                         size_t *blob_start,
                         char *reason,
                         size_t reason_size);

/**
 * Makes an empty slot; without it, or from memory of zeros alone, there is none.
 */
void lineinfo_slot_init(struct lineinfo_slot *slot);

/**
 * Ends a slot that nobody uses any more, that of a module which goes away, and frees its table.
 *
 * The caller promises:
 *
 * Nobody uses the slot during the call or after it.
 */
void lineinfo_slot_destroy(struct lineinfo_slot *slot);

/**
 * Writes the text of a run-time address: " (file:line)", or " (file:~line)" if the table is only
 * approximate there.
 *
 * kind is one of LINEINFO_ADDRESS_*, with or without LINEINFO_ADDRESS_UNRELIABLE. For any
 * context, an NMI too; takes less than 1 KiB of stack, and no lock.
 *
 * Returns the length of what was written in bytes, without the zero that ends it: 0 if there is no
 * table, if it does not know the address, or for a kind that this version does not know.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_slot_text(const struct lineinfo_slot *slot,
                          uint32_t kind,
                          uint64_t address,
                          char *text,
                          size_t text_size);

/**
 * Writes the text of a function that is inlined at a run-time address, as lineinfo_inlined_text does. For
 * any context, an NMI too; takes no lock.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_slot_inlined_text(const struct lineinfo_slot *slot,
                                  uint32_t kind,
                                  uint64_t address,
                                  uint32_t level,
                                  char *text,
                                  size_t text_size);

/**
 * Writes the text of the physical function at a run-time address, as lineinfo_physical_text does. For any
 * context, an NMI too; takes no lock.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_slot_physical_text(const struct lineinfo_slot *slot,
                                   uint32_t kind,
                                   uint64_t address,
                                   char *text,
                                   size_t text_size);

/**
 * Where the offsets of init text begin in the table of a module, in bytes: Linux loads init text
 * apart from the text that stays, so its run-time addresses are to be counted from there. For any
 * context.
 *
 * Returns 0 if there is no table, or no init text in it.
 */
uint64_t lineinfo_slot_init_start(const struct lineinfo_slot *slot);

/**
 * Memory of the table in a slot, in bytes; 0 if it is empty. For any context.
 */
uint64_t lineinfo_slot_memory(const struct lineinfo_slot *slot);

/**
 * How often a slot was asked for an address. For any context.
 */
size_t lineinfo_slot_lookups(const struct lineinfo_slot *slot);

/**
 * How often it did not know the address. For any context.
 */
size_t lineinfo_slot_misses(const struct lineinfo_slot *slot);

/**
 * Returns 1 if an old table of the slot is still to be freed by lineinfo_device_reclaim, else 0.
 * For any context.
 */
int lineinfo_slot_is_pending(const struct lineinfo_slot *slot);

/**
 * Makes a device.
 *
 * Returns 0, or minus LINEINFO_EINVAL for a policy or a trust that this version does not know; then
 * the device refuses every load.
 */
int lineinfo_device_init(struct lineinfo_device *device,
                         const struct lineinfo_config *config);

/**
 * Fills the slot of the kernel from the end of its boot image, if the policy is
 * LINEINFO_POLICY_ON. Whatever is wrong there is logged.
 *
 * image goes to lineinfo_port_read as it is.
 */
void lineinfo_device_load_appended(struct lineinfo_device *device,
                                   void *image,
                                   uint64_t image_size);

/**
 * Opens a file of the device: for status and look-ups, or, if writing is not 0, for loads too.
 *
 * Returns 0 and writes file, or minus an errno: LINEINFO_EPERM, or LINEINFO_EBUSY if another
 * file is open for writing.
 */
int lineinfo_device_open(struct lineinfo_device *device,
                         const struct lineinfo_caller *caller,
                         int writing,
                         struct lineinfo_file *file);

/**
 * Takes the next bytes of a blob, all of them; with the last one the table is published.
 *
 * Returns 0, or minus an errno that says what is wrong with the blob; the log and the status of the
 * slot say more.
 *
 * The caller promises:
 *
 * from is valid for reads of size bytes, or size is 0.
 */
int lineinfo_device_write(struct lineinfo_device *device,
                          struct lineinfo_file *file,
                          const uint8_t *from,
                          size_t size);

/**
 * Makes a request: code is one of LINEINFO_IOC_*, and argument has the size and goes the ways
 * that the number says.
 *
 * Returns 0, or minus an errno: LINEINFO_ENOTTY for a number that is none.
 *
 * The caller promises:
 *
 * argument is valid for reads and writes of size bytes, or size is 0.
 */
int lineinfo_device_ioctl(struct lineinfo_device *device,
                          struct lineinfo_file *file,
                          uint32_t code,
                          uint8_t *argument,
                          size_t size);

/**
 * What the slot of a file's target holds; lineinfo_status_text makes of it what read gives.
 *
 * Returns 0 and writes status, or minus LINEINFO_ENOENT if the module has gone.
 */
int lineinfo_device_status(const struct lineinfo_device *device,
                           const struct lineinfo_file *file,
                           struct lineinfo_status *status);

/**
 * For flush of a file: returns 0, or minus an errno if what was written is not a whole blob.
 */
int lineinfo_device_flush(const struct lineinfo_device *device, const struct lineinfo_file *file);

/**
 * Closes a file; what was written and is not published is discarded.
 */
void lineinfo_device_close(struct lineinfo_device *device, const struct lineinfo_file *file);

/**
 * The init text of a module is gone, or that of the kernel if the name is empty: frees what its
 * table says of it.
 *
 * Returns 0, or minus LINEINFO_EINVAL for a name that is not UTF-8.
 *
 * The caller promises:
 *
 * name is valid for reads of len bytes, or len is 0.
 */
int lineinfo_device_free_init(struct lineinfo_device *device, const char *name, size_t len);

/**
 * Frees an old table of a slot whose readers have left by now.
 */
void lineinfo_device_reclaim(struct lineinfo_device *device, const struct lineinfo_slot *slot);

/**
 * Writes a status as text, one name: value a line: what reading the device gives.
 *
 * Returns the length of what was written in bytes, without the zero that ends it: at most
 * LINEINFO_STATUS_TEXT_MAX.
 *
 * The caller promises:
 *
 * text is valid for writes of text_size bytes, or text_size is 0.
 */
size_t lineinfo_status_text(const struct lineinfo_status *status, char *text, size_t text_size);

/**
 * Defined by the kernel: zeroed memory for a blob, that starts at a page, or null. It may sleep.
 *
 * size is a multiple of LINEINFO_PAGE_BYTES.
 */
extern void *lineinfo_port_allocate(size_t size);

/**
 * Defined by the kernel: frees the memory after the first size bytes, a multiple of
 * LINEINFO_PAGE_BYTES. Returns where they are now: at memory, or elsewhere with the same
 * contents, and memory is free; or null if it cannot, and nothing changed. It may sleep.
 */
extern void *lineinfo_port_truncate(void *memory, size_t old_size, size_t size);

/**
 * Defined by the kernel: makes memory read-only. Returns 0, or something else if that failed.
 */
extern int lineinfo_port_seal(void *memory, size_t size);

/**
 * Defined by the kernel: frees memory, sealed or not. It may be called while a table is
 * replaced or unloaded, never from a look-up.
 */
extern void lineinfo_port_free(void *memory, size_t size);

/**
 * Defined by the kernel: a small object of size bytes, at the alignment of a uint64_t, or
 * null. It may sleep.
 */
extern void *lineinfo_port_allocate_object(size_t size);

/**
 * Defined by the kernel: frees a small object.
 */
extern void lineinfo_port_free_object(void *object, size_t size);

/**
 * Defined by the kernel: a clock that never goes back, in milliseconds.
 */
extern uint64_t lineinfo_port_now_ms(void);

/**
 * Defined by the kernel: writes a line of len bytes, without a zero at its end, to the log.
 * level is one of LINEINFO_LEVEL_*.
 */
extern void lineinfo_port_log(uint32_t level, const char *line, size_t len);

/**
 * Defined by the kernel: verifies an Ed25519 signature (RFC 8032) of 64 bytes with a public key
 * of 32. What was signed is the concatenation of count parts. Returns 1 if it is right, else 0,
 * as a kernel without cryptography does. Asked only with LINEINFO_TRUST_KEY.
 */
extern int lineinfo_port_verify(const uint8_t *key,
                                const uint8_t *signature,
                                const struct lineinfo_part *parts,
                                size_t count);

/**
 * Defined by the kernel: sleeps a little while readers of an old table leave. Returns 0 to give
 * up, after it waited waited_ms milliseconds.
 */
extern int lineinfo_port_keep_waiting(uint64_t waited_ms);

/**
 * Defined by the kernel: the slot of a module, pinned until lineinfo_port_slot_put, or null if
 * no such module is loaded. An empty name stands for the kernel.
 *
 * name has len bytes, without a zero at its end. What a table must be is written to
 * expected.
 */
extern const struct lineinfo_slot *lineinfo_port_slot_get(const char *name,
                                                          size_t len,
                                                          struct lineinfo_expected *expected);

/**
 * Defined by the kernel: the slot of the module that a run-time address is in, pinned, or that
 * of the kernel; never null.
 */
extern const struct lineinfo_slot *lineinfo_port_slot_get_at(uint64_t address);

/**
 * Defined by the kernel: ends the use of a slot.
 */
extern void lineinfo_port_slot_put(const struct lineinfo_slot *slot);

/**
 * Defined by the kernel: reads size bytes at an offset of a file, all within it. Returns 0, or
 * something else if that failed.
 */
extern int lineinfo_port_read(void *file, uint64_t offset, void *to, size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LINEINFO_H */
