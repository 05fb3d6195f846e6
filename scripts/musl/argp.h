/* Types for elfutils' lib/; nothing in libelf parses arguments. */
#ifndef KERNLOOM_ARGP_H
#define KERNLOOM_ARGP_H
#include <errno.h>
#include <stdio.h>

typedef int error_t;
struct argp_state;
struct argp_option {
	const char *name;
	int key;
	const char *arg;
	int flags;
	const char *doc;
	int group;
};
typedef error_t (*argp_parser_t)(int, char *, struct argp_state *);
struct argp {
	const struct argp_option *options;
	argp_parser_t parser;
	const char *args_doc;
	const char *doc;
	const void *children;
	char *(*help_filter)(int, const char *, void *);
	const char *argp_domain;
};
struct argp_state {
	const struct argp *root_argp;
	int argc;
	char **argv;
	int next;
	unsigned flags;
	unsigned arg_num;
	int quoted;
	void *input;
	void **child_inputs;
	void *hook;
	char *name;
	FILE *err_stream;
	FILE *out_stream;
	void *pstate;
};
#define ARGP_ERR_UNKNOWN 7
#define OPTION_ARG_OPTIONAL 1
#define ARGP_HELP_SEE 4
#define ARGP_HELP_EXIT_ERR 0x100
void argp_help(const struct argp *, FILE *, unsigned, char *);
error_t argp_parse(const struct argp *, int, char **, unsigned, int *, void *);
void argp_error(const struct argp_state *, const char *, ...);
#endif
