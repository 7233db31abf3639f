// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * How the text gets into a stack trace.
 *
 * A line of a trace is printed with "%pBb" on x86 and "%pSb" on arm64, that of an instruction
 * pointer with "%pS"; each has a function that writes the text of a symbol. ftrace (or a kprobe
 * where ftrace cannot) leads callers of these functions to ours, which write the same and append
 * the location.
 *
 * "%pS" is for anybody's text, and "? " is before the text of a frame that may be none: what a text
 * is for is seen in printk, by its format. There, before the line of a frame is formatted, inlined
 * functions get lines of their own: the buffer of a symbol has no room for them, and a record of
 * the log is one line. They have the level of the frame, and come before it in any context, for
 * printk keeps the order of what one context prints. It formats a line twice, first for its length,
 * but is called once.
 *
 * Nothing here sleeps, takes a lock, or calls what can be traced before it is sure to be there.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "shim.h"

/* What printk is about to print an address as. */
enum use {
	USE_FRAME,
	USE_INSTRUCTION,
	USE_LINK_REGISTER,
};

struct format {
	const char *text;
	enum use use;
	/*
	 * Which argument of printk is the address, which the level of the line, and which is "? "
	 * before what may be no frame; 0 if none is.
	 */
	unsigned int address, level, mark;
};

static const struct format formats[] = {
#ifdef CONFIG_X86_64
	{ "%s %s%pBb\n", USE_FRAME, 3, 1, 2 },
	{ "%sRIP: %04x:%pS\n", USE_INSTRUCTION, 3, 1, 0 },
#else
	{ "%s %pSb\n", USE_FRAME, 2, 1, 0 },
	{ "pc : %pS\n", USE_INSTRUCTION, 1, 0, 0 },
	{ "lr : %pS\n", USE_LINK_REGISTER, 1, 0, 0 },
#endif
};

/* How an address is looked up that gets no location. */
#define NO_LOOKUP	U32_MAX

/* What is printed in a context of a CPU, and what follows from it. */
struct note {
	/* 0 if it is no address that is of interest here. */
	unsigned long address;
	/* LINEINFO_ADDRESS_*, or NO_LOOKUP. */
	u32 kind;
	/* Inlined functions have lines of their own. */
	bool is_physical;
	/* An exception entry, after which comes the instruction that was interrupted. */
	bool is_entry;
	/* An instruction pointer, after which no frame came: a trace may begin with it. */
	unsigned long instruction;
};

enum { IN_TASK, IN_SOFTIRQ, IN_HARDIRQ, IN_NMI, CONTEXTS };

static DEFINE_PER_CPU(struct note[CONTEXTS], notes);

/* With preemption disabled. */
static struct note *current_note(void)
{
	unsigned int context = IN_TASK;

	if (in_nmi())
		context = IN_NMI;
	else if (in_hardirq())
		context = IN_HARDIRQ;
	else if (in_serving_softirq())
		context = IN_SOFTIRQ;
	return this_cpu_ptr(&notes[context]);
}

static struct note get_note(void)
{
	struct note note;

	preempt_disable_notrace();
	note = *current_note();
	preempt_enable_notrace();
	return note;
}

static void put_note(const struct note *note)
{
	preempt_disable_notrace();
	*current_note() = *note;
	preempt_enable_notrace();
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static bool is_trap(unsigned long address)
{
#ifdef CONFIG_X86_64
	/* ud2 */
	u8 instruction[2];

	return !copy_from_kernel_nofault(instruction, (void *)address, sizeof(instruction)) &&
	       instruction[0] == 0x0f && instruction[1] == 0x0b;
#else
	/* brk with a number that the compiler uses, not that of a kprobe (asm/brk-imm.h) */
	u32 instruction;

	return !copy_from_kernel_nofault(&instruction, (void *)address, sizeof(instruction)) &&
	       (instruction & 0xffe0001f) == 0xd4200000 && (instruction >> 5 & 0xffff) >= 0x100;
#endif
}

static u32 kind_of_instruction(unsigned long address)
{
	return is_trap(address) ? LINEINFO_ADDRESS_TRAP : LINEINFO_ADDRESS_EXACT;
}

#ifdef CONFIG_X86_64
static u32 kind_of_frame(struct note *note, bool is_instruction)
{
	return LINEINFO_ADDRESS_RETURN;
}
#else
/* el1h_64_sync and its like (arch/arm64/kernel/entry.S), and not the handlers that they call. */
static bool is_entry(const char *symbol)
{
	return (!strncmp(symbol, "el1h_64_", 8) || !strncmp(symbol, "el1t_64_", 8)) &&
	       !strstr(symbol, "_handler+");
}

/*
 * A trace may begin with the instruction pointer, and after an exception entry comes the
 * instruction that was interrupted; the start of a function is nothing that a call returns to,
 * either.
 */
static noinline u32 kind_of_frame(struct note *note, bool is_instruction)
{
	char symbol[KSYM_SYMBOL_LEN];

	sprint_symbol(symbol, note->address);
	note->is_entry = is_entry(symbol);
	if (is_instruction)
		return kind_of_instruction(note->address);
	return strstr(symbol, "+0x0/") ? LINEINFO_ADDRESS_EXACT : LINEINFO_ADDRESS_RETURN;
}
#endif

static noinline void print_inlined(const struct note *note, const char *level)
{
	/* On the stack of an NMI. What does not fit is left out. */
	char text[256];
	size_t len;
	u32 i;

	for (i = 0;; i++) {
		len = lineinfo_inlined(text, sizeof(text), note->kind, note->address, i);
		if (!len)
			break;
		if (len + 1 < sizeof(text))
			printk("%s%s\n", level, text);
	}
}

static const struct format *find_format(const char *text)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(formats); i++)
		if (same(text, formats[i].text))
			return &formats[i];
	return NULL;
}

/* printk was called: the first arguments are enough to tell what for. */
static void note_printk(const unsigned long arguments[4])
{
	const struct format *format = find_format((const char *)arguments[0]);
	struct note note = get_note();
	bool is_instruction;

	note.address = format ? arguments[format->address] : 0;
	note.kind = NO_LOOKUP;
	note.is_physical = false;
	is_instruction = note.is_entry || note.instruction == note.address;
	note.is_entry = false;
	if (format && format->use == USE_LINK_REGISTER) {
		note.kind = LINEINFO_ADDRESS_RETURN | LINEINFO_ADDRESS_UNRELIABLE;
	} else if (format && format->use == USE_INSTRUCTION) {
		note.kind = kind_of_instruction(note.address);
		note.is_physical = READ_ONCE(lineinfo_inlines);
		note.instruction = note.address;
	} else if (format && !(format->mark && *(const char *)arguments[format->mark] == '?')) {
		note.kind = kind_of_frame(&note, is_instruction);
		note.is_physical = READ_ONCE(lineinfo_inlines);
		note.instruction = 0;
	}
	if (note.is_physical)
		print_inlined(&note, format->level ? (const char *)arguments[format->level] : "");
	/* Last: the driver of a console may have printed a trace of its own meanwhile. */
	put_note(&note);
}

/* Instead of sprint_symbol, for "%pS". */
static int print_symbol(char *buffer, unsigned long address)
{
	int len = sprint_symbol(buffer, address);
	struct note note = get_note();

	if (note.address != address || note.kind == NO_LOOKUP)
		return len;
	return lineinfo_annotate(buffer, len, note.kind, address, note.is_physical);
}

/* Who prints such a line in another way than a trace does may have an address of another kind. */
static int annotate_frame(char *buffer, int len, unsigned long address)
{
	struct note note = get_note();

	if (note.address != address) {
		note.kind = LINEINFO_ADDRESS_RETURN | LINEINFO_ADDRESS_UNRELIABLE;
		note.is_physical = false;
	}
	if (note.kind == NO_LOOKUP)
		return len;
	return lineinfo_annotate(buffer, len, note.kind, address, note.is_physical);
}

#ifdef CONFIG_X86_64
#define FRAME_FUNCTION	"sprint_backtrace_build_id"

/* Adds one to the offset in "symbol+0xoffset/0xsize"; says how long the text is then. */
static int increment_offset(char *text, int len)
{
	char *plus = strchr(text, '+');
	char *slash = plus ? strchr(plus, '/') : NULL;
	char *digit;

	if (!slash)
		return len;
	for (digit = slash - 1; digit > plus + 2; digit--) {
		if (*digit != 'f') {
			*digit = *digit == '9' ? 'a' : *digit + 1;
			return len;
		}
		*digit = '0';
	}
	if (len + 1 >= KSYM_SYMBOL_LEN)
		return len;
	memmove(plus + 4, plus + 3, text + len + 1 - (plus + 3));
	plus[3] = '1';
	return len + 1;
}

/*
 * Instead of sprint_backtrace_build_id, for "%pBb". That is not exported: it writes the symbol of
 * the byte before a return address, which may be of another function, and counts from the address.
 */
static int print_frame(char *buffer, unsigned long address)
{
	int len = sprint_symbol_build_id(buffer, address - 1);

	/* It has no symbol. */
	if (len > 1 && buffer[0] == '0' && buffer[1] == 'x')
		return sprintf(buffer, "0x%lx", address);
	return annotate_frame(buffer, increment_offset(buffer, len), address);
}
#else
#define FRAME_FUNCTION	"sprint_symbol_build_id"

/* Instead of sprint_symbol_build_id, for "%pSb". */
static int print_frame(char *buffer, unsigned long address)
{
	return annotate_frame(buffer, sprint_symbol_build_id(buffer, address), address);
}
#endif

struct hook {
	char function[32];
	/* What is called instead; NULL where only the arguments are of interest. */
	int (*replacement)(char *buffer, unsigned long address);
	bool has_ftrace, has_kprobe;
	struct kprobe kprobe;
#ifdef CONFIG_DYNAMIC_FTRACE
	struct ftrace_ops ops;
#endif
};

/* The first is there whenever the others are, which depend on what it saw. */
static struct hook hooks[] = {
	{ .function = "_printk" },
	{ .function = FRAME_FUNCTION, .replacement = print_frame },
	{ .function = "sprint_symbol", .replacement = print_symbol },
};

/* Calls from here are meant for the function itself. */
static bool is_own(unsigned long caller)
{
	return within_module(caller, THIS_MODULE);
}

#ifdef CONFIG_DYNAMIC_FTRACE
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define ftrace_regs_set_instruction_pointer ftrace_instruction_pointer_set
#define ftrace_regs_get_argument(fregs, n) regs_get_kernel_argument(&(fregs)->regs, n)
#endif

static void notrace redirect(unsigned long ip, unsigned long caller, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	const struct hook *hook = container_of(ops, struct hook, ops);

	if (!is_own(caller))
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hook->replacement);
}

static void notrace look(unsigned long ip, unsigned long caller, struct ftrace_ops *ops,
			 struct ftrace_regs *fregs)
{
	const unsigned long arguments[] = {
		ftrace_regs_get_argument(fregs, 0), ftrace_regs_get_argument(fregs, 1),
		ftrace_regs_get_argument(fregs, 2), ftrace_regs_get_argument(fregs, 3),
	};

	if (!is_own(caller))
		note_printk(arguments);
}

/* -ENOENT if ftrace cannot hook the function. */
static int hook_with_ftrace(struct hook *hook)
{
	int ret;

	/* PERMANENT: to switch ftrace off is refused, and not done in silence. */
	hook->ops.flags = FTRACE_OPS_FL_PERMANENT;
	hook->ops.func = look;
	if (hook->replacement) {
		hook->ops.flags |= FTRACE_OPS_FL_IPMODIFY;
		hook->ops.func = redirect;
	}
	if (!IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_ARGS))
		hook->ops.flags |= FTRACE_OPS_FL_SAVE_REGS;
	ret = ftrace_set_filter(&hook->ops, hook->function, strlen(hook->function), 0);
	if (ret)
		return -ENOENT;
	ret = register_ftrace_function(&hook->ops);
	if (ret)
		ftrace_free_filter(&hook->ops);
	else
		hook->has_ftrace = true;
	return ret;
}

static void unhook_from_ftrace(struct hook *hook)
{
	unregister_ftrace_function(&hook->ops);
	ftrace_free_filter(&hook->ops);
}
#else
static int hook_with_ftrace(struct hook *hook)
{
	return -ENOENT;
}

static void unhook_from_ftrace(struct hook *hook)
{
}
#endif

static unsigned long caller_at_entry(const struct pt_regs *regs)
{
#ifdef CONFIG_X86_64
	return *(const unsigned long *)regs->sp;
#else
	return regs->regs[30];
#endif
}

static int redirect_kprobe(struct kprobe *kprobe, struct pt_regs *regs)
{
	const struct hook *hook = container_of(kprobe, struct hook, kprobe);

	if (is_own(caller_at_entry(regs)))
		return 0;
	instruction_pointer_set(regs, (unsigned long)hook->replacement);
	return 1;
}

static int look_kprobe(struct kprobe *kprobe, struct pt_regs *regs)
{
	const unsigned long arguments[] = {
		regs_get_kernel_argument(regs, 0), regs_get_kernel_argument(regs, 1),
		regs_get_kernel_argument(regs, 2), regs_get_kernel_argument(regs, 3),
	};

	if (!is_own(caller_at_entry(regs)))
		note_printk(arguments);
	return 0;
}

/* With it, a kprobe is not replaced by a jump, which could not lead elsewhere. */
static void after_kprobe(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
}

static int hook_with_kprobe(struct hook *hook)
{
	int ret;

	hook->kprobe.symbol_name = hook->function;
	hook->kprobe.pre_handler = hook->replacement ? redirect_kprobe : look_kprobe;
	hook->kprobe.post_handler = after_kprobe;
	ret = register_kprobe(&hook->kprobe);
	hook->has_kprobe = !ret;
	return ret;
}

int lineinfo_hooks_init(bool kprobes)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		ret = kprobes ? -ENOENT : hook_with_ftrace(&hooks[i]);
		if (ret == -ENOENT)
			ret = hook_with_kprobe(&hooks[i]);
		if (!ret)
			continue;
		if (ret == -EBUSY)
			pr_err("%s is redirected already, by a livepatch or another module, or kernel.ftrace_enabled is 0; undo that first\n",
			       hooks[i].function);
		else
			pr_err("neither ftrace nor a kprobe can hook %s: %d; this kernel is not supported\n",
			       hooks[i].function, ret);
		lineinfo_hooks_exit();
		return ret;
	}
	return 0;
}

/* After this, no code of the hooks runs, in whatever context. */
void lineinfo_hooks_exit(void)
{
	unsigned int i;

	/* The hook of printk is the last to go, and frames have no locations then. */
	WRITE_ONCE(lineinfo_inlines, false);
	for (i = ARRAY_SIZE(hooks); i-- > 0;) {
		if (hooks[i].has_ftrace)
			unhook_from_ftrace(&hooks[i]);
		if (hooks[i].has_kprobe)
			unregister_kprobe(&hooks[i].kprobe);
		hooks[i].has_ftrace = false;
		hooks[i].has_kprobe = false;
	}
	/* Tasks that were preempted in them, then interrupts of the idle task. */
	synchronize_rcu_tasks();
	synchronize_rcu();
}
