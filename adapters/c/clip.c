/* Gradient clipping in plain C, as a program that speaks the protocol of secateurs.
 *
 *     cc -std=c11 -O2 -o clip clip.c -lm
 *     secateurs verify --command ./clip --operation 'clip.*'
 *
 * It is a worked example: it calls no library, it clips by itself (clip.value, clip.norm, clip.global_norm) and
 * declares no dialect, so it is judged by the canonical behaviour. The parts, from top to bottom:
 *
 *     1. reading JSON        just enough: finding a member, going through a list
 *     2. number formats      the bits of a tensor to doubles, and doubles back to bits
 *     3. lists of tensors    read from a request, written to an answer
 *     4. clipping            the mathematics: this part is yours
 *     5. the protocol        one request a line, one answer a line
 *
 * Whatever is computed is computed in double and rounded once, on the way out.
 */
#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A request ends in an answer, or in a refusal of its arguments, or in an error: both of these jump back to the loop
 * that reads requests. What a request has allocated is in one list, freed before the next. */
enum ending { ANSWERED, REJECTED, ERRORED };
static jmp_buf next_request;
static char message[300];

static _Noreturn void give_up(enum ending how, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    longjmp(next_request, how);
}

struct block { struct block *next; max_align_t memory[]; };
static struct block *blocks;

static void *allocate(size_t bytes) {
    struct block *block = calloc(1, sizeof *block + bytes);
    if (!block) give_up(ERRORED, "out of memory: %zu bytes", bytes);
    block->next = blocks;
    blocks = block;
    return block->memory;
}

static void free_all(void) {
    while (blocks) {
        struct block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

/* --- 1. reading JSON --------------------------------------------------------------------------------------------
 *
 * A value is the place in the line where its text begins; nothing is built or copied. */

static const char *skip_space(const char *p) {
    while (isspace((unsigned char)*p)) p++;
    return p;
}

/* Return the place behind a value. */
static const char *skip(const char *p) {
    if (*p == '"') {
        for (p++; *p && *p != '"'; p++)
            if (*p == '\\' && p[1]) p++;
        if (!*p) give_up(ERRORED, "not JSON: a string has no end");
        return p + 1;
    }
    if (*p == '{' || *p == '[') {
        char close = *p == '{' ? '}' : ']';
        p = skip_space(p + 1);
        while (*p && *p != close)
            p = *p == ',' || *p == ':' ? skip_space(p + 1) : skip_space(skip(p));
        if (!*p) give_up(ERRORED, "not JSON: a %c is missing", close);
        return p + 1;
    }
    const char *start = p;
    while (*p && !strchr(",:]}\" \t\r\n", *p)) p++;
    if (p == start) give_up(ERRORED, "not JSON: a value is missing");
    return p;
}

static bool is_null(const char *value) { return !value || !strncmp(value, "null", 4); }

/* Return the value of a member of an object, or NULL if there is none. */
static const char *find(const char *object, const char *name) {
    size_t length = strlen(name);
    if (!object || *object != '{') give_up(ERRORED, "malformed: no object where %s is looked for", name);
    for (const char *p = skip_space(object + 1); *p == '"';) {
        const char *after = skip(p), *value = skip_space(after);
        if (*value != ':') give_up(ERRORED, "not JSON: a colon is missing");
        value = skip_space(value + 1);
        if ((size_t)(after - p) == length + 2 && !strncmp(p + 1, name, length)) return value;
        p = skip_space(skip(value));
        if (*p == ',') p = skip_space(p + 1);
    }
    return NULL;
}

static const char *need(const char *object, const char *name) {
    const char *value = find(object, name);
    if (!value) give_up(ERRORED, "malformed: %s is missing", name);
    return value;
}

/* Return the first entry of a list, and the one after an entry; NULL behind the last. */
static const char *first(const char *list) {
    if (*list != '[') give_up(ERRORED, "malformed: a list is expected");
    list = skip_space(list + 1);
    return *list == ']' ? NULL : list;
}

static const char *next(const char *entry) {
    entry = skip_space(skip(entry));
    return *entry == ',' ? skip_space(entry + 1) : NULL;
}

/* Read a number. Numbers that are not finite come as the strings "inf", "-inf" and "nan"; strtod reads these too. */
static double number(const char *value) {
    char *end;
    if (*value == '"') value++;
    double result = strtod(value, &end);
    if (end == value) give_up(ERRORED, "malformed: a number is expected, got %.20s", value);
    return result;
}

/* --- 2. number formats ------------------------------------------------------------------------------------------ */

struct format {
    const char *name;
    int bits, precision, emax; /* precision counts the leading bit, which is not written */
    int parts;                 /* a complex number is two words: real, imaginary */
};

static const struct format FORMATS[] = {
    {"float64", 64, 53, 1023, 1},   {"float32", 32, 24, 127, 1},     {"float16", 16, 11, 15, 1},
    {"bfloat16", 16, 8, 127, 1},    {"complex64", 32, 24, 127, 2},   {"complex128", 64, 53, 1023, 2},
};
enum { FLOAT64, FLOAT32, FORMAT_COUNT = sizeof FORMATS / sizeof *FORMATS };

static double from_bits(uint64_t word, const struct format *f) {
    int stored = f->precision - 1;
    uint64_t fraction = word & ((UINT64_C(1) << stored) - 1);
    int exponent = (int)(word >> stored) & (2 * f->emax + 1);
    double value;
    if (exponent == 2 * f->emax + 1)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0) /* zero and subnormal numbers have no leading bit */
        value = ldexp((double)fraction, 1 - f->emax - stored);
    else
        value = ldexp((double)(fraction | UINT64_C(1) << stored), exponent - f->emax - stored);
    return word >> (f->bits - 1) ? -value : value;
}

/* Round to nearest, ties to even; the lowest bit worth keeping is the quantum's. */
static uint64_t to_bits(double value, const struct format *f) {
    int stored = f->precision - 1, exponent;
    uint64_t sign = (uint64_t)(signbit(value) != 0) << (f->bits - 1);
    uint64_t infinite = (uint64_t)(2 * f->emax + 1) << stored;
    if (isnan(value)) return infinite | UINT64_C(1) << (stored - 1);
    if (isinf(value)) return sign | infinite;
    if (value == 0) return sign;
    frexp(value, &exponent); /* |value| lies in [2^(exponent-1), 2^exponent) */
    int lowest = 1 - f->emax, binade = exponent - 1 > lowest ? exponent - 1 : lowest;
    uint64_t whole = (uint64_t)nearbyint(ldexp(fabs(value), stored - binade));
    /* Adding instead of combining lets a rounded-up number carry into the exponent. */
    uint64_t word = whole + ((uint64_t)(binade - lowest) << stored);
    return sign | (word > infinite ? infinite : word);
}

/* --- 3. lists of tensors ---------------------------------------------------------------------------------------- */

struct tensor {
    const struct format *format;
    const char *shape; /* its text, which goes back as it came */
    size_t words;      /* elements, or twice as many of a complex tensor */
    double *values;
    long same_as;      /* this very tensor is an earlier entry of the list; -1: it is not */
    bool absent;       /* null: there is no gradient */
};

struct list { size_t length; struct tensor *tensors; };

static bool is_digit(char c) { return isxdigit((unsigned char)c) != 0; }

static struct tensor read_tensor(const char *entry, size_t index) {
    struct tensor t = {.same_as = -1, .absent = is_null(entry)};
    if (t.absent) return t;
    const char *same = find(entry, "same_as");
    if (same) {
        t.same_as = (long)number(same);
        if (t.same_as < 0 || (size_t)t.same_as >= index) give_up(ERRORED, "malformed: same_as %ld", t.same_as);
        return t;
    }
    const char *dtype = need(entry, "dtype"), *bits = need(entry, "bits");
    t.shape = need(entry, "shape");
    for (const struct format *f = FORMATS; f < FORMATS + FORMAT_COUNT; f++)
        if (!strncmp(dtype + 1, f->name, strlen(f->name)) && dtype[1 + strlen(f->name)] == '"') t.format = f;
    if (!t.format) give_up(ERRORED, "malformed: dtype %.20s", dtype);
    t.words = (size_t)t.format->parts;
    for (const char *n = first(t.shape); n; n = next(n)) t.words *= (size_t)number(n);
    int digits = t.format->bits / 4;
    if (*bits != '"' || t.words > strlen(bits)) give_up(ERRORED, "malformed: too few bits");
    t.values = allocate((t.words + 1) * sizeof(double));
    const char *p = bits + 1;
    for (size_t i = 0; i < t.words; i++) {
        char word[17] = "";
        p = skip_space(p);
        for (int d = 0; d < digits; d++, p++) {
            if (!is_digit(*p)) give_up(ERRORED, "malformed: a word of %s has %d digits", t.format->name, digits);
            word[d] = *p;
        }
        t.values[i] = from_bits(strtoull(word, NULL, 16), t.format);
    }
    if (*skip_space(p) != '"') give_up(ERRORED, "malformed: more words than the shape says");
    return t;
}

static struct list read_list(const char *text) {
    struct list list = {0};
    for (const char *e = first(text); e; e = next(e)) list.length++;
    list.tensors = allocate((list.length + 1) * sizeof *list.tensors);
    size_t i = 0;
    for (const char *e = first(text); e; e = next(e), i++) list.tensors[i] = read_tensor(e, i);
    return list;
}

static void write_tensor(const struct tensor *t) {
    if (t->absent) {
        printf("null");
        return;
    }
    printf("{\"dtype\":\"%s\",\"shape\":%.*s,\"bits\":\"", t->format->name, (int)(skip(t->shape) - t->shape), t->shape);
    for (size_t i = 0; i < t->words; i++)
        printf("%s%0*llx", i ? " " : "", t->format->bits / 4, (unsigned long long)to_bits(t->values[i], t->format));
    printf("\"}");
}

static void write_list(struct list list) {
    printf("[");
    for (size_t i = 0; i < list.length; i++) {
        const struct tensor *t = &list.tensors[i];
        if (i) printf(",");
        write_tensor(t->same_as >= 0 ? &list.tensors[t->same_as] : t);
    }
    printf("]");
}

/* An entry that stands for an earlier one is neither counted nor scaled again. */
static bool has_values(const struct tensor *t) { return !t->absent && t->same_as < 0; }

/* Begin the answer to the request that is being worked on, with its id as it came. */
static const char *request_id;

static void begin(const char *what) {
    printf("{\"id\":%.*s,\"%s\":", (int)(skip(request_id) - request_id), request_id, what);
}

/* --- 4. clipping ------------------------------------------------------------------------------------------------ */

static double magnitude(const struct tensor *t, size_t i) {
    return t->format->parts == 1 ? fabs(t->values[i]) : hypot(t->values[i], t->values[i + 1]);
}

/* (sum |g|^p)^(1/p) over all tensors. The largest magnitude is divided out first, so that no power overflows and none
 * that matters is lost: a norm is right whenever it can be written down. */
static double norm_of(const struct tensor *tensors, size_t length, double p) {
    double top = 0, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t k = 0; k < length; k++) {
            if (!has_values(&tensors[k])) continue;
            for (size_t i = 0; i < tensors[k].words; i += (size_t)tensors[k].format->parts) {
                double m = magnitude(&tensors[k], i);
                if (isnan(m) || isnan(top)) top = NAN;
                else if (pass == 0) top = fmax(top, m);
                else sum += p == 2 ? (m / top) * (m / top) : pow(m / top, p);
            }
        }
        if (top == 0 || !isfinite(top) || isinf(p)) return top;
    }
    return top * (p == 2 ? sqrt(sum) : pow(sum, 1 / p));
}

/* A norm is reported in float64 if a gradient is as wide as that, else in float32; one beyond it is infinite. */
static struct tensor reported(double norm, const struct tensor *tensors, size_t length) {
    struct tensor t = {.format = &FORMATS[FLOAT32], .shape = "[]", .words = 1, .same_as = -1};
    for (size_t k = 0; k < length; k++)
        if (has_values(&tensors[k]) && tensors[k].format->bits == 64) t.format = &FORMATS[FLOAT64];
    t.values = allocate(sizeof(double));
    t.values[0] = from_bits(to_bits(norm, t.format), t.format);
    return t;
}

/* g * min(1, c/n): a gradient at or below the threshold stays as it is, a NaN or infinite norm leaves only NaN. */
static void scale(struct tensor *t, double limit, double norm) {
    if (isinf(limit) || norm <= limit) return;
    for (size_t i = 0; i < t->words; i++)
        /* Two factors: the quotient limit / norm could be too small to be written down. */
        t->values[i] = isfinite(norm) ? t->values[i] / norm * limit : NAN;
}

static void check(double limit, double p) {
    if (!(limit >= 0)) give_up(REJECTED, "max_norm must be a number >= 0, got %g", limit);
    if (!(p > 0)) give_up(REJECTED, "ord must be > 0 or inf, got %g", p);
}

static void clip_global_norm(const char *inputs, const char *params) {
    struct list grads = read_list(need(inputs, "grads"));
    double limit = number(need(params, "max_norm")), p = number(need(params, "ord"));
    check(limit, p);
    double norm = norm_of(grads.tensors, grads.length, p);
    struct tensor total = reported(norm, grads.tensors, grads.length);
    for (size_t k = 0; k < grads.length; k++)
        if (has_values(&grads.tensors[k])) scale(&grads.tensors[k], limit, total.values[0]);
    begin("outputs");
    printf("{\"grads\":");
    write_list(grads);
    printf(",\"total_norm\":");
    write_tensor(&total);
    printf("}}\n");
}

static void clip_norm(const char *inputs, const char *params) {
    struct list grads = read_list(need(inputs, "grads"));
    double limit = number(need(params, "max_norm")), p = number(need(params, "ord"));
    check(limit, p);
    struct list norms = {grads.length, allocate((grads.length + 1) * sizeof(struct tensor))};
    for (size_t k = 0; k < grads.length; k++) {
        struct tensor *t = &grads.tensors[k];
        norms.tensors[k] = *t;
        if (!has_values(t)) continue;
        norms.tensors[k] = reported(norm_of(t, 1, p), t, 1);
        scale(t, limit, norms.tensors[k].values[0]);
    }
    begin("outputs");
    printf("{\"grads\":");
    write_list(grads);
    printf(",\"norms\":");
    write_list(norms);
    printf("}}\n");
}

static void clip_value(const char *inputs, const char *params) {
    struct list grads = read_list(need(inputs, "grads"));
    const char *min = find(params, "min"), *max = find(params, "max"), *range = find(params, "range");
    if (is_null(min) && is_null(max) && is_null(range)) give_up(REJECTED, "give min, max or range");
    if (!is_null(range) && !(is_null(min) && is_null(max))) give_up(REJECTED, "give range, or min and max, not both");
    double low = is_null(min) ? -INFINITY : number(min), high = is_null(max) ? INFINITY : number(max);
    if (!is_null(range)) high = number(range) / 2, low = -high;
    if (!(low <= high)) give_up(REJECTED, "min must be <= max, got %g and %g", low, high);
    for (size_t k = 0; k < grads.length; k++) {
        struct tensor *t = &grads.tensors[k];
        if (!has_values(t)) continue;
        if (t->format->parts > 1) give_up(REJECTED, "complex numbers have no order, so no interval");
        for (size_t i = 0; i < t->words; i++)
            if (!isnan(t->values[i])) t->values[i] = fmin(fmax(t->values[i], low), high);
    }
    begin("outputs");
    printf("{\"grads\":");
    write_list(grads);
    printf("}}\n");
}

/* --- 5. the protocol -------------------------------------------------------------------------------------------- */

static const struct operation { const char *name; void (*run)(const char *inputs, const char *params); } OPERATIONS[] = {
    {"clip.global_norm", clip_global_norm},
    {"clip.norm", clip_norm},
    {"clip.value", clip_value},
};
enum { OPERATION_COUNT = sizeof OPERATIONS / sizeof *OPERATIONS };

static void start(void) {
    printf("{\"protocol\":1,\"implementation\":{\"name\":\"c\",\"version\":\"1.0\",\"language\":\"C\",");
    printf("\"language_version\":\"%ld\",\"operations\":{", __STDC_VERSION__);
    for (int i = 0; i < OPERATION_COUNT; i++) {
        printf("%s\"%s\":{\"dtypes\":[", i ? "," : "", OPERATIONS[i].name);
        for (int f = 0; f < FORMAT_COUNT; f++) printf("%s\"%s\"", f ? "," : "", FORMATS[f].name);
        printf("]}");
    }
    printf("}}}\n");
}

static bool is_text(const char *value, const char *text) {
    return *value == '"' && !strncmp(value + 1, text, strlen(text)) && value[1 + strlen(text)] == '"';
}

static void run(const char *request) {
    const char *name = need(request, "operation");
    for (int i = 0; i < OPERATION_COUNT; i++) {
        if (!is_text(name, OPERATIONS[i].name)) continue;
        const char *inputs = need(request, "inputs"), *params = need(request, "params");
        /* It begins to print when all is read and computed: until then it may give up. */
        OPERATIONS[i].run(inputs, params);
        return;
    }
    begin("unsupported");
    printf("{\"reason\":\"this program clips by value, by norm and by global norm\"}}\n");
}

static void complain(enum ending how) {
    begin(how == REJECTED ? "rejected" : "errored");
    printf("{\"message\":\"");
    for (const char *c = message; *c; c++)
        if (isprint((unsigned char)*c) && *c != '"' && *c != '\\') putchar(*c);
    printf("\"}}\n");
}

/* Read a line of any length into *line, which grows; false at the end of the input. */
static bool read_line(char **line, size_t *capacity) {
    size_t length = 0;
    for (int c = getchar();; c = getchar()) {
        if (length + 1 >= *capacity && !(*line = realloc(*line, *capacity = 2 * *capacity + 4096))) exit(1);
        if (c == EOF && length == 0) return false;
        (*line)[length] = '\0';
        if (c == '\n' || c == EOF) return true;
        (*line)[length++] = (char)c;
    }
}

int main(void) {
    static char *line;
    static size_t capacity;
    while (read_line(&line, &capacity)) {
        request_id = "null";
        int how = setjmp(next_request);
        if (how != ANSWERED) {
            complain(how);
        } else {
            const char *request = skip_space(line), *command = need(request, "cmd"), *id = find(request, "id");
            if (id) request_id = id;
            if (is_text(command, "stop")) break;
            if (is_text(command, "start")) start();
            else run(request);
        }
        free_all();
        fflush(stdout); /* the runner waits for the line: nothing may stay in a buffer */
    }
    free_all();
    free(line);
    return 0;
}
