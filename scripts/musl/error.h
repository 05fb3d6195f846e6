#ifndef KERNLOOM_ERROR_H
#define KERNLOOM_ERROR_H
void error(int, int, const char *, ...);
#endif
