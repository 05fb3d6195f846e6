#ifndef KERNLOOM_OBSTACK_H
#define KERNLOOM_OBSTACK_H
struct obstack {
	int unused;
};
#endif
