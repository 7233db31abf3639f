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
 * is for is seen in printk, by its format. printk formats twice, first for the length.
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
	USE_NONE,
	USE_FRAME,
	USE_UNRELIABLE_FRAME,
	USE_INSTRUCTION,
	USE_LINK_REGISTER,
};

struct format {
	const char *text;
	enum use use;
	/* Which argument of printk is the address, and which is "? " before what may be none. */
	unsigned int address, mark;
};

static const struct format formats[] = {
#ifdef CONFIG_X86_64
	{ "%s %s%pBb\n", USE_FRAME, 3, 2 },
	{ "%sRIP: %04x:%pS\n", USE_INSTRUCTION, 3, 0 },
#else
	{ "%s %pSb\n", USE_FRAME, 2, 0 },
	{ "pc : %pS\n", USE_INSTRUCTION, 1, 0 },
	{ "lr : %pS\n", USE_LINK_REGISTER, 1, 0 },
#endif
};

/* What was seen last in a context of a CPU, and what follows from it. */
struct note {
	unsigned long address;
	enum use use;
	/* An instruction pointer, after which no frame came: a trace may begin with it. */
	unsigned long instruction;
	/* The last frame was that of an exception entry, so the next is an instruction. */
	bool is_entry;
	/* The frame is an instruction, nothing that a call returns to. */
	bool is_instruction;
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

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* printk was called: the first arguments are enough to tell what for. */
static void note_printk(const unsigned long arguments[4])
{
	const struct format *format = NULL;
	enum use use = USE_NONE;
	struct note *note;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(formats) && !format; i++)
		if (same((const char *)arguments[0], formats[i].text))
			format = &formats[i];
	if (format)
		use = format->use;
	if (format && format->mark && *(const char *)arguments[format->mark] == '?')
		use = USE_UNRELIABLE_FRAME;

	preempt_disable_notrace();
	note = current_note();
	note->address = format ? arguments[format->address] : 0;
	note->use = use;
	note->is_instruction = note->is_entry || note->instruction == note->address;
	note->is_entry = false;
	if (use == USE_INSTRUCTION)
		note->instruction = note->address;
	else if (use == USE_FRAME)
		note->instruction = 0;
	preempt_enable_notrace();
}

/* What an address is printed as, which is being printed now. */
static enum use use_of(unsigned long address)
{
	enum use use = USE_NONE;
	struct note *note;

	preempt_disable_notrace();
	note = current_note();
	if (note->address == address)
		use = note->use;
	preempt_enable_notrace();
	return use;
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

/* Instead of sprint_symbol, for "%pS". */
static int print_symbol(char *buffer, unsigned long address)
{
	int len = sprint_symbol(buffer, address);

	switch (use_of(address)) {
	case USE_INSTRUCTION:
		return lineinfo_annotate(buffer, len, kind_of_instruction(address), address);
	case USE_LINK_REGISTER:
		return lineinfo_annotate(buffer, len, LINEINFO_ADDRESS_RETURN |
					 LINEINFO_ADDRESS_UNRELIABLE, address);
	default:
		return len;
	}
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
	enum use use = use_of(address);
	u32 kind = LINEINFO_ADDRESS_RETURN;
	int len = sprint_symbol_build_id(buffer, address - 1);

	/* It has no symbol. */
	if (len > 1 && buffer[0] == '0' && buffer[1] == 'x')
		return sprintf(buffer, "0x%lx", address);
	len = increment_offset(buffer, len);
	if (use == USE_UNRELIABLE_FRAME)
		return len;
	if (use != USE_FRAME)
		kind |= LINEINFO_ADDRESS_UNRELIABLE;
	return lineinfo_annotate(buffer, len, kind, address);
}
#else
#define FRAME_FUNCTION	"sprint_symbol_build_id"

/* el1h_64_sync and its like (arch/arm64/kernel/entry.S), and not the handlers that they call. */
static bool is_entry(const char *symbol)
{
	return (!strncmp(symbol, "el1h_64_", 8) || !strncmp(symbol, "el1t_64_", 8)) &&
	       !strstr(symbol, "_handler+");
}

/*
 * Instead of sprint_symbol_build_id, for "%pSb". A trace may begin with the instruction pointer,
 * and after an exception entry comes the instruction that was interrupted; the start of a function
 * is nothing that a call returns to, either.
 */
static int print_frame(char *buffer, unsigned long address)
{
	enum use use = use_of(address);
	u32 kind = LINEINFO_ADDRESS_RETURN;
	int len = sprint_symbol_build_id(buffer, address);
	struct note *note;

	if (use != USE_FRAME)
		kind |= LINEINFO_ADDRESS_UNRELIABLE;
	preempt_disable_notrace();
	note = current_note();
	if (use == USE_FRAME && note->is_instruction)
		kind = kind_of_instruction(address);
	else if (strstr(buffer, "+0x0/"))
		kind = LINEINFO_ADDRESS_EXACT;
	note->is_entry = is_entry(buffer);
	preempt_enable_notrace();
	return lineinfo_annotate(buffer, len, kind, address);
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
