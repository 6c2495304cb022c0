/* What happens to a request's rows between the socket and the trees, without an object per value:
 *
 *   scan       the head of a plain POST, or None: whatever is unusual is left to a real HTTP parser
 *   Intake     rows as JSON has them -> typed columns, or False: whatever is unusual is left to the code that explains errors
 *   Assembler  feature columns -> the model's matrix
 *   Bins       the matrix and the scores -> counters of bins, and of values out of range
 *   ids        prediction ids
 *
 * Nothing here decides what is an error. Every function either does the plain case completely or says that it is not plain.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* A quiet NaN that the model takes for missing, and the bins for a category that training did not see. */
#define UNSEEN_BITS 0x7fc00001u

static float unseen_value(void) {
    uint32_t bits = UNSEEN_BITS;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int is_unseen(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits == UNSEEN_BITS;
}

/* A writable, contiguous buffer of exactly this item size that holds at least `items`. */
static int hold_buffer(PyObject *object, Py_buffer *view, Py_ssize_t itemsize, Py_ssize_t items, int writable) {
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) return -1;
    if (view->itemsize != itemsize || view->len < itemsize * items) {
        PyBuffer_Release(view);
        PyErr_Format(PyExc_ValueError, "expected a buffer of at least %zd items of %zd bytes", items, itemsize);
        return -1;
    }
    return 0;
}

/* ---- timestamps: the one form that nearly all clients write; anything else goes to datetime.fromisoformat ---- */

static int digits(const char *text, int count, int *value) {
    int found = 0;
    for (int i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        found = found * 10 + (text[i] - '0');
    }
    *value = found;
    return 1;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar, counted from 1 March as the leap day then comes last. */
static int64_t days_of(int year, int month, int day) {
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400, year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static int month_days(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* YYYY-MM-DD, T or a space, HH:MM:SS, .mmm or .uuuuuu or nothing, Z or +HH:MM or -HH:MM or nothing. Microseconds, UTC. */
static int parse_timestamp(const char *text, Py_ssize_t length, int64_t *found) {
    int year, month, day, hour, minute, second, micro = 0;
    if (length < 19 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != ' ') || text[13] != ':' ||
        text[16] != ':')
        return 0;
    if (!digits(text, 4, &year) || !digits(text + 5, 2, &month) || !digits(text + 8, 2, &day) ||
        !digits(text + 11, 2, &hour) || !digits(text + 14, 2, &minute) || !digits(text + 17, 2, &second))
        return 0;
    if (year < 2 || year > 9998 || month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 ||
        minute > 59 || second > 59)
        return 0;
    Py_ssize_t at = 19;
    if (at < length && text[at] == '.') {
        if (length - at >= 7 && digits(text + at + 1, 6, &micro))
            at += 7;
        else if (length - at >= 4 && digits(text + at + 1, 3, &micro)) {
            micro *= 1000;
            at += 4;
        } else
            return 0;
    }
    int64_t offset = 0;
    if (at < length && text[at] == 'Z')
        at += 1;
    else if (at < length && (text[at] == '+' || text[at] == '-')) {
        int hours, minutes;
        if (length - at != 6 || text[at + 3] != ':' || !digits(text + at + 1, 2, &hours) ||
            !digits(text + at + 4, 2, &minutes) || hours > 23 || minutes > 59)
            return 0;
        offset = (hours * 60 + minutes) * 60 * (text[at] == '-' ? -1 : 1);
        at += 6;
    }
    if (at != length) return 0;
    int64_t seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    *found = seconds * 1000000 + micro;
    return 1;
}

/* ---- Intake ---- */

enum { NUMBER, INTEGER, BOOLEAN, TEXT, TIMESTAMP, KEY, KINDS };

typedef struct {
    PyObject *name;
    int kind, nullable;
    Py_buffer view;
} Column;

/* The rows of requests word for word, as JSON lists one after the other: the log keeps them. */
typedef struct {
    char *text;
    Py_ssize_t size, room;
    int32_t *ends; /* by row */
} Journal;

typedef struct {
    PyObject_HEAD
    Py_ssize_t count, capacity;
    Column *columns;
    Journal journal;
} Intake;

#define MAX_JOURNAL INT32_MAX

/* Room for `more` bytes; 0 when there is none. */
static int reserve(Journal *journal, Py_ssize_t more) {
    Py_ssize_t needed = journal->size + more;
    if (needed <= journal->room) return 1;
    Py_ssize_t room = needed + needed / 2 + 4096;
    if (needed > MAX_JOURNAL) return 0;
    char *text = PyMem_Realloc(journal->text, room);
    if (text == NULL) return 0;
    journal->text = text;
    journal->room = room;
    return 1;
}

static inline void note(Journal *journal, const char *text, Py_ssize_t length) {
    memcpy(journal->text + journal->size, text, length);
    journal->size += length;
}

static void intake_dealloc(Intake *self) {
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_XDECREF(self->columns[i].name);
        PyBuffer_Release(&self->columns[i].view);
    }
    PyMem_Free(self->columns);
    PyMem_Free(self->journal.text);
    PyMem_Free(self->journal.ends);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *intake_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *columns;
    Py_ssize_t capacity;
    if (!PyArg_ParseTuple(args, "O!n", &PyTuple_Type, &columns, &capacity)) return NULL;
    if (capacity < 1) return PyErr_Format(PyExc_ValueError, "expected a capacity of at least one row");
    Intake *self = (Intake *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->capacity = capacity;
    self->columns = PyMem_Calloc(PyTuple_GET_SIZE(columns) ? PyTuple_GET_SIZE(columns) : 1, sizeof(Column));
    self->journal.ends = PyMem_Calloc(capacity, sizeof(int32_t));
    if (self->columns == NULL || self->journal.ends == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(columns); i++) {
        Column *column = &self->columns[i];
        PyObject *name, *array;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(columns, i), "UipO", &name, &column->kind, &column->nullable, &array))
            goto fail;
        if (column->kind < 0 || column->kind >= KINDS) {
            PyErr_SetString(PyExc_ValueError, "there is no such kind of column");
            goto fail;
        }
        Py_ssize_t itemsize = column->kind == BOOLEAN ? 1 : 8;
        if (hold_buffer(array, &column->view, itemsize, capacity, 1) < 0) goto fail;
        int objects = column->view.format != NULL && strcmp(column->view.format, "O") == 0;
        if (objects != (column->kind == TEXT || column->kind == KEY)) {
            PyBuffer_Release(&column->view);
            PyErr_SetString(PyExc_ValueError, "expected an object array for text and for nothing else");
            goto fail;
        }
        column->name = Py_NewRef(name);
        self->count = i + 1;
    }
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static void put_object(Column *column, Py_ssize_t row, PyObject *value) {
    PyObject **cell = (PyObject **)column->view.buf + row;
    PyObject *before = *cell;
    *cell = Py_NewRef(value);
    Py_XDECREF(before);
}

/* One value into its cell; 0 when it is not plain. */
static int put(Column *column, Py_ssize_t row, PyObject *value) {
    switch (column->kind) {
    case NUMBER: {
        double *cell = (double *)column->view.buf + row;
        if (PyFloat_CheckExact(value)) {
            *cell = PyFloat_AS_DOUBLE(value);
            return isfinite(*cell);
        }
        if (value == Py_None) {
            *cell = Py_NAN;
            return 1;
        }
        if (!PyLong_CheckExact(value)) return 0;
        *cell = PyLong_AsDouble(value);
        if (*cell == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return 0;
        }
        return 1;
    }
    case INTEGER: {
        int overflow = 0;
        if (!PyLong_CheckExact(value)) return 0;
        ((int64_t *)column->view.buf)[row] = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow == 0;
    }
    case BOOLEAN:
        if (!PyBool_Check(value)) return 0;
        ((uint8_t *)column->view.buf)[row] = value == Py_True;
        return 1;
    case TEXT:
        if (value != Py_None && !PyUnicode_CheckExact(value)) return 0;
        put_object(column, row, value);
        return 1;
    case KEY:
        if (value != Py_None && !PyUnicode_CheckExact(value) && !PyLong_CheckExact(value)) return 0;
        put_object(column, row, value);
        return 1;
    default: {
        int64_t *cell = (int64_t *)column->view.buf + row;
        if (value == Py_None) {
            *cell = INT64_MIN; /* numpy's NaT */
            return 1;
        }
        if (!PyUnicode_CheckExact(value) || !PyUnicode_IS_COMPACT_ASCII(value)) return 0;
        return parse_timestamp((const char *)PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value), cell);
    }
    }
}

static int fits(Intake *self, Py_ssize_t start, Py_ssize_t rows) {
    return start >= 0 && rows > 0 && rows <= self->capacity - start;
}

/* How a request's columns meet ours: by its column the place of ours or -1, and those of ours that it does not have. */
typedef struct {
    const int32_t *targets, *absent;
    Py_ssize_t width, absences;
} Plan;

static int read_plan(Intake *self, PyObject *targets, PyObject *absent, Plan *plan) {
    if (!PyBytes_CheckExact(targets) || !PyBytes_CheckExact(absent)) return 0;
    *plan = (Plan){(const int32_t *)PyBytes_AS_STRING(targets), (const int32_t *)PyBytes_AS_STRING(absent),
                   PyBytes_GET_SIZE(targets) / (Py_ssize_t)sizeof(int32_t),
                   PyBytes_GET_SIZE(absent) / (Py_ssize_t)sizeof(int32_t)};
    for (Py_ssize_t i = 0; i < plan->width; i++)
        if (plan->targets[i] >= self->count) return 0;
    for (Py_ssize_t i = 0; i < plan->absences; i++)
        if (plan->absent[i] < 0 || plan->absent[i] >= self->count) return 0;
    return 1;
}

static int put_absent(Intake *self, const Plan *plan, Py_ssize_t row) {
    for (Py_ssize_t i = 0; i < plan->absences; i++) {
        Column *column = &self->columns[plan->absent[i]];
        if (!column->nullable || !put(column, row, Py_None)) return 0;
    }
    return 1;
}

/* split(targets, absent, rows, start): rows are lists with one value per column of the request. */
static PyObject *intake_split(Intake *self, PyObject *const *args, Py_ssize_t nargs) {
    Plan plan;
    if (nargs != 4 || !read_plan(self, args[0], args[1], &plan) || !PyList_CheckExact(args[2]))
        return PyErr_Format(PyExc_TypeError, "expected split(targets, absent, rows, start)");
    Py_ssize_t start = PyLong_AsSsize_t(args[3]);
    if (start == -1 && PyErr_Occurred()) return NULL;
    PyObject *rows = args[2];
    Py_ssize_t count = PyList_GET_SIZE(rows);
    if (!fits(self, start, count)) Py_RETURN_FALSE;
    for (Py_ssize_t r = 0; r < count; r++) {
        PyObject *row = PyList_GET_ITEM(rows, r);
        if (!PyList_CheckExact(row) || PyList_GET_SIZE(row) != plan.width) Py_RETURN_FALSE;
        for (Py_ssize_t c = 0; c < plan.width; c++)
            if (plan.targets[c] >= 0 && !put(&self->columns[plan.targets[c]], start + r, PyList_GET_ITEM(row, c)))
                Py_RETURN_FALSE;
        if (!put_absent(self, &plan, start + r)) Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

/* ---- the same from text: JSON as RFC 8259 has it, of plain values only ---- */

typedef struct {
    const char *at, *end;
} Text;

static inline void skip_space(Text *text) {
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\r' || *text->at == '\t'))
        text->at++;
}

static inline int skip_char(Text *text, char expected) {
    skip_space(text);
    if (text->at >= text->end || *text->at != expected) return 0;
    text->at++;
    return 1;
}

static int skip_word(Text *text, const char *word) {
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    if (text->end - text->at < length || memcmp(text->at, word, length) != 0) return 0;
    text->at += length;
    return 1;
}

typedef struct {
    uint64_t mantissa;
    int exponent, negative, whole, exact; /* exact: mantissa * 10^exponent is the value */
    const char *from;
    Py_ssize_t length;
} Number;

static inline int is_digit(const Text *text) { return text->at < text->end && *text->at >= '0' && *text->at <= '9'; }

static void take_digits(Text *text, Number *number) {
    for (; is_digit(text); text->at++) {
        if (number->mantissa > (UINT64_MAX - 9) / 10) number->exact = 0;
        number->mantissa = number->mantissa * 10 + (uint64_t)(*text->at - '0');
    }
}

static int read_number(Text *text, Number *number) {
    *number = (Number){.whole = 1, .exact = 1, .from = text->at};
    if (text->at < text->end && *text->at == '-') {
        number->negative = 1;
        text->at++;
    }
    if (!is_digit(text)) return 0;
    if (*text->at == '0')
        text->at++; /* and no other digit may follow */
    else
        take_digits(text, number);
    if (text->at < text->end && *text->at == '.') {
        number->whole = 0;
        text->at++;
        const char *fraction = text->at;
        take_digits(text, number);
        if (text->at == fraction) return 0;
        if (text->at - fraction > 1000) return 0;
        number->exponent = -(int)(text->at - fraction);
    }
    if (text->at < text->end && (*text->at == 'e' || *text->at == 'E')) {
        number->whole = 0;
        text->at++;
        int negative = 0, exponent = 0;
        if (text->at < text->end && (*text->at == '+' || *text->at == '-')) negative = *text->at++ == '-';
        if (!is_digit(text)) return 0;
        for (; is_digit(text); text->at++)
            if (exponent < 10000) exponent = exponent * 10 + (*text->at - '0');
        number->exponent += negative ? -exponent : exponent;
    }
    number->length = text->at - number->from;
    return 1;
}

/* Exact where one IEEE operation is (Clinger 1990): both numbers are doubles without rounding. Python's own conversion for the rest. */
static int number_value(const Number *number, double *found) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (number->exact && (number->exponent == 0 || number->mantissa <= (UINT64_C(1) << 53)) && number->exponent >= -22 &&
        number->exponent <= 22) {
        double value = (double)number->mantissa;
        value = number->exponent < 0 ? value / powers[-number->exponent] : value * powers[number->exponent];
        *found = number->negative ? -value : value;
        return 1;
    }
    char copy[64];
    if (number->length >= (Py_ssize_t)sizeof copy) return 0;
    memcpy(copy, number->from, number->length);
    copy[number->length] = '\0';
    *found = PyOS_string_to_double(copy, NULL, NULL);
    if (*found == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return isfinite(*found);
}

/* A string without escapes; its characters without the quotes. */
static int read_string(Text *text, const char **from, Py_ssize_t *length) {
    text->at++;
    *from = text->at;
    while (text->at < text->end && *text->at != '"') {
        if (*text->at == '\\' || (unsigned char)*text->at < 32) return 0;
        text->at++;
    }
    if (text->at >= text->end) return 0;
    *length = text->at - *from;
    text->at++;
    return 1;
}

static int put_fresh(Column *column, Py_ssize_t row, PyObject *value) {
    if (value == NULL) {
        PyErr_Clear(); /* not UTF-8 */
        return 0;
    }
    put_object(column, row, value);
    Py_DECREF(value);
    return 1;
}

static int put_number(Column *column, Py_ssize_t row, Text *text) {
    Number number;
    if (!read_number(text, &number)) return 0;
    if (column == NULL) return 1;
    if (number.whole && number.negative && number.mantissa == 0) return 0; /* -0 is an integer to some, and a float to others */
    int small = number.whole && number.exact && number.mantissa <= INT64_MAX;
    int64_t whole = number.negative ? -(int64_t)number.mantissa : (int64_t)number.mantissa;
    switch (column->kind) {
    case NUMBER:
        return number_value(&number, (double *)column->view.buf + row);
    case INTEGER:
        if (small) ((int64_t *)column->view.buf)[row] = whole;
        return small;
    case KEY:
        return small && put_fresh(column, row, PyLong_FromLongLong(whole));
    default:
        return 0;
    }
}

static int put_string(Column *column, Py_ssize_t row, Text *text) {
    const char *from;
    Py_ssize_t length;
    if (!read_string(text, &from, &length)) return 0;
    if (column != NULL && column->kind == TIMESTAMP) return parse_timestamp(from, length, (int64_t *)column->view.buf + row);
    if (column != NULL && column->kind != TEXT && column->kind != KEY) return 0;
    PyObject *value = PyUnicode_DecodeUTF8(from, length, NULL);
    if (column != NULL) return put_fresh(column, row, value);
    if (value == NULL) PyErr_Clear();
    Py_XDECREF(value);
    return value != NULL;
}

/* One value into its cell, or past it if it is none of our columns; 0 when it is not plain. */
static int put_text(Column *column, Py_ssize_t row, Text *text) {
    skip_space(text);
    if (text->at >= text->end) return 0;
    switch (*text->at) {
    case '"':
        return put_string(column, row, text);
    case 'n':
        return skip_word(text, "null") && (column == NULL || put(column, row, Py_None));
    case 't':
        return skip_word(text, "true") && (column == NULL || put(column, row, Py_True));
    case 'f':
        return skip_word(text, "false") && (column == NULL || put(column, row, Py_False));
    default:
        return put_number(column, row, text);
    }
}

static int put_text_row(Intake *self, const Plan *plan, Py_ssize_t row, Text *text) {
    skip_space(text);
    const char *from = text->at;
    if (!skip_char(text, '[')) return 0;
    for (Py_ssize_t c = 0; c < plan->width; c++) {
        if (c > 0 && !skip_char(text, ',')) return 0;
        if (!put_text(plan->targets[c] < 0 ? NULL : &self->columns[plan->targets[c]], row, text)) return 0;
    }
    if (!skip_char(text, ']') || !put_absent(self, plan, row)) return 0;
    if (!reserve(&self->journal, text->at - from)) return 0;
    note(&self->journal, from, text->at - from);
    self->journal.ends[row] = (int32_t)self->journal.size;
    return 1;
}

/* split_text(targets, absent, data, offset, start): as split, from the text `[[...], ...]}}` at data[offset:]. How many rows; 0: not plain; -1: no room. */
static PyObject *intake_split_text(Intake *self, PyObject *const *args, Py_ssize_t nargs) {
    Plan plan;
    if (nargs != 5 || !read_plan(self, args[0], args[1], &plan) || !PyBytes_CheckExact(args[2]))
        return PyErr_Format(PyExc_TypeError, "expected split_text(targets, absent, data, offset, start)");
    Py_ssize_t offset = PyLong_AsSsize_t(args[3]), start = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred()) return NULL;
    if (offset < 0 || offset > PyBytes_GET_SIZE(args[2])) return PyErr_Format(PyExc_ValueError, "the offset is not in data");
    Text text = {PyBytes_AS_STRING(args[2]) + offset, PyBytes_AS_STRING(args[2]) + PyBytes_GET_SIZE(args[2])};
    Py_ssize_t rows = 0;
    if (start < 0 || start > self->capacity) return PyErr_Format(PyExc_ValueError, "there is no such row");
    self->journal.size = start > 0 ? self->journal.ends[start - 1] : 0;
    if (!skip_char(&text, '[')) return PyLong_FromLong(0);
    do {
        if (!fits(self, start, rows + 1)) return PyLong_FromLong(-1);
        if (!put_text_row(self, &plan, start + rows, &text)) return PyLong_FromLong(0);
        rows++;
    } while (skip_char(&text, ','));
    if (!skip_char(&text, ']') || !skip_char(&text, '}') || !skip_char(&text, '}')) return PyLong_FromLong(0);
    skip_space(&text);
    return PyLong_FromSsize_t(text.at == text.end ? rows : 0);
}

/* records(rows, start): rows are objects, one value per column. */
static PyObject *intake_records(Intake *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_CheckExact(args[0])) return PyErr_Format(PyExc_TypeError, "expected records(rows, start)");
    Py_ssize_t start = PyLong_AsSsize_t(args[1]);
    if (start == -1 && PyErr_Occurred()) return NULL;
    PyObject *rows = args[0];
    Py_ssize_t count = PyList_GET_SIZE(rows);
    if (!fits(self, start, count)) Py_RETURN_FALSE;
    for (Py_ssize_t r = 0; r < count; r++) {
        PyObject *row = PyList_GET_ITEM(rows, r);
        if (!PyDict_CheckExact(row)) Py_RETURN_FALSE;
        for (Py_ssize_t c = 0; c < self->count; c++) {
            PyObject *value = PyDict_GetItemWithError(row, self->columns[c].name);
            if (value == NULL) {
                if (PyErr_Occurred()) return NULL;
                if (!self->columns[c].nullable) Py_RETURN_FALSE;
                value = Py_None;
            }
            if (!put(&self->columns[c], start + r, value)) Py_RETURN_FALSE;
        }
    }
    Py_RETURN_TRUE;
}

/* columns(lists, rows, start): an object of lists, one per column, each with `rows` values. */
static PyObject *intake_columns(Intake *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 || !PyDict_CheckExact(args[0]))
        return PyErr_Format(PyExc_TypeError, "expected columns(lists, rows, start)");
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), start = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred()) return NULL;
    if (!fits(self, start, count)) Py_RETURN_FALSE;
    for (Py_ssize_t c = 0; c < self->count; c++) {
        PyObject *values = PyDict_GetItemWithError(args[0], self->columns[c].name);
        if (values == NULL) {
            if (PyErr_Occurred()) return NULL;
            if (!self->columns[c].nullable) Py_RETURN_FALSE;
        } else if (!PyList_CheckExact(values) || PyList_GET_SIZE(values) != count)
            Py_RETURN_FALSE;
        for (Py_ssize_t r = 0; r < count; r++)
            if (!put(&self->columns[c], start + r, values == NULL ? Py_None : PyList_GET_ITEM(values, r))) Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

/* journal(rows): what `split_text` noted of the first rows: the text, and int32 ends by row. */
static PyObject *intake_journal(Intake *self, PyObject *argument) {
    Py_ssize_t rows = PyLong_AsSsize_t(argument);
    if (rows == -1 && PyErr_Occurred()) return NULL;
    if (rows < 1 || rows > self->capacity || self->journal.ends[rows - 1] > self->journal.size)
        return PyErr_Format(PyExc_ValueError, "there are no such rows");
    return Py_BuildValue("(y#y#)", self->journal.text, (Py_ssize_t)self->journal.ends[rows - 1],
                         (const char *)self->journal.ends, rows * (Py_ssize_t)sizeof(int32_t));
}

static PyMethodDef intake_methods[] = {
    {"journal", (PyCFunction)intake_journal, METH_O, NULL},
    {"split", (PyCFunction)(void (*)(void))intake_split, METH_FASTCALL, NULL},
    {"split_text", (PyCFunction)(void (*)(void))intake_split_text, METH_FASTCALL, NULL},
    {"records", (PyCFunction)(void (*)(void))intake_records, METH_FASTCALL, NULL},
    {"columns", (PyCFunction)(void (*)(void))intake_columns, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot intake_slots[] = {{Py_tp_new, intake_new},
                                     {Py_tp_dealloc, intake_dealloc},
                                     {Py_tp_methods, intake_methods},
                                     {Py_tp_doc, "Rows as JSON has them, into typed columns that are used again and again."},
                                     {0, NULL}};
static PyType_Spec intake_spec = {"perennial_native._rows.Intake", sizeof(Intake), 0, Py_TPFLAGS_DEFAULT, intake_slots};

/* ---- Assembler ---- */

typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    PyObject **names;
    PyObject **codes; /* a dict of category to float, or NULL for a numeric feature */
} Assembler;

static void assembler_dealloc(Assembler *self) {
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_XDECREF(self->names[i]);
        Py_XDECREF(self->codes[i]);
    }
    PyMem_Free(self->names);
    PyMem_Free(self->codes);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *assembler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *features;
    if (!PyArg_ParseTuple(args, "O!", &PyTuple_Type, &features)) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(features);
    Assembler *self = (Assembler *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->names = PyMem_Calloc(count ? count : 1, sizeof(PyObject *));
    self->codes = PyMem_Calloc(count ? count : 1, sizeof(PyObject *));
    if (self->names == NULL || self->codes == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name, *codes;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(features, i), "UO", &name, &codes)) goto fail;
        if (codes != Py_None && !PyDict_CheckExact(codes)) {
            PyErr_SetString(PyExc_TypeError, "expected codes as a dict, or None for a numeric feature");
            goto fail;
        }
        self->names[i] = Py_NewRef(name);
        self->codes[i] = codes == Py_None ? NULL : Py_NewRef(codes);
        self->count = i + 1;
    }
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

/* Infinite is missing, as in training. */
static inline float finite_or_missing(double value) {
    float found = (float)value;
    return isfinite(found) ? found : (float)Py_NAN;
}

#define COPY(type)                                                                                                     \
    for (Py_ssize_t r = 0; r < rows; r++, from += stride, to += width) {                                               \
        type value;                                                                                                    \
        memcpy(&value, from, sizeof value);                                                                            \
        *to = finite_or_missing((double)value);                                                                                   \
    }                                                                                                                  \
    return 1;

static int copy_numbers(char format, const char *from, Py_ssize_t stride, float *to, Py_ssize_t width, Py_ssize_t rows) {
    switch (format) {
    case 'd': COPY(double)
    case 'f': COPY(float)
    case 'l': COPY(long)
    case 'q': COPY(long long)
    case 'i': COPY(int)
    case 'h': COPY(short)
    case 'b': COPY(signed char)
    case '?':
    case 'B': COPY(unsigned char)
    case 'H': COPY(unsigned short)
    case 'I': COPY(unsigned int)
    case 'L': COPY(unsigned long)
    case 'Q': COPY(unsigned long long)
    default: return 0;
    }
}

static int copy_codes(PyObject *codes, const char *from, Py_ssize_t stride, float *to, Py_ssize_t width, Py_ssize_t rows) {
    for (Py_ssize_t r = 0; r < rows; r++, from += stride, to += width) {
        PyObject *value;
        memcpy(&value, from, sizeof value);
        if (value == NULL || value == Py_None) {
            *to = (float)Py_NAN;
            continue;
        }
        if (!PyUnicode_CheckExact(value)) return 0;
        PyObject *code = PyDict_GetItemWithError(codes, value);
        if (code == NULL) {
            if (PyErr_Occurred()) return -1;
            *to = unseen_value();
        } else if (PyFloat_CheckExact(code))
            *to = (float)PyFloat_AS_DOUBLE(code);
        else
            return 0;
    }
    return 1;
}

/* assemble(features, rows, matrix): True, or False when a feature is not a plain array of this length. */
static PyObject *assembler_assemble(Assembler *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "expected assemble(features, rows, matrix)");
    if (!PyDict_CheckExact(args[0])) Py_RETURN_FALSE;
    Py_ssize_t rows = PyLong_AsSsize_t(args[1]);
    if (rows < 0) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "expected rows >= 0");
    Py_buffer matrix;
    if (hold_buffer(args[2], &matrix, sizeof(float), rows * self->count, 1) < 0) return NULL;
    int plain = 1;
    for (Py_ssize_t c = 0; c < self->count && plain == 1; c++) {
        PyObject *array = PyDict_GetItemWithError(args[0], self->names[c]);
        Py_buffer view;
        if (array == NULL || PyObject_GetBuffer(array, &view, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
            PyErr_Clear();
            plain = 0;
            break;
        }
        const char *format = view.format == NULL ? "B" : view.format;
        if (view.ndim != 1 || view.shape[0] != rows || format[0] == '\0' || format[1] != '\0')
            plain = 0;
        else if (self->codes[c] != NULL)
            plain = format[0] != 'O' ? 0
                                     : copy_codes(self->codes[c], view.buf, view.strides[0], (float *)matrix.buf + c,
                                                  self->count, rows);
        else
            plain = copy_numbers(format[0], view.buf, view.strides[0], (float *)matrix.buf + c, self->count, rows);
        PyBuffer_Release(&view);
    }
    PyBuffer_Release(&matrix);
    if (plain < 0) return NULL;
    return PyBool_FromLong(plain);
}

static PyMethodDef assembler_methods[] = {
    {"assemble", (PyCFunction)(void (*)(void))assembler_assemble, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot assembler_slots[] = {{Py_tp_new, assembler_new},
                                        {Py_tp_dealloc, assembler_dealloc},
                                        {Py_tp_methods, assembler_methods},
                                        {Py_tp_doc, "Feature columns, into the model's matrix."},
                                        {0, NULL}};
static PyType_Spec assembler_spec = {"perennial_native._rows.Assembler", sizeof(Assembler), 0, Py_TPFLAGS_DEFAULT,
                                     assembler_slots};

/* ---- Bins ---- */

typedef struct {
    int64_t start, missing, other; /* places among the counters; `other` is -1 for a numeric feature */
    int64_t first, edges;          /* numeric: where its edges begin, and how many there are */
    int64_t outside;               /* the counter of values below `low` or above `high`; where these are infinite there is none */
    float low, high;
} FeatureBins;

typedef struct {
    PyObject_HEAD
    Py_ssize_t count; /* features, and the predictions last */
    int64_t size;     /* counters */
    FeatureBins *bins;
    float *edges;
} Bins;

static void bins_dealloc(Bins *self) {
    PyMem_Free(self->bins);
    PyMem_Free(self->edges);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* What a feature is described by: (edges or None, bins, (low, high) or None). */
static int read_feature(PyObject *feature, PyObject **edges, Py_ssize_t *bins, float *low, float *high) {
    PyObject *range;
    double least = -Py_HUGE_VAL, greatest = Py_HUGE_VAL;
    if (!PyTuple_Check(feature) || !PyArg_ParseTuple(feature, "OnO", edges, bins, &range) ||
        (*edges != Py_None && !PyTuple_Check(*edges)) || (range != Py_None && !PyTuple_Check(range))) {
        PyErr_SetString(PyExc_TypeError, "expected (edges or None, bins, (low, high) or None) by feature");
        return 0;
    }
    if (range != Py_None && !PyArg_ParseTuple(range, "dd", &least, &greatest)) return 0;
    *low = (float)least;
    *high = (float)greatest;
    return 1;
}

/* Bins(((edges or None, bins, (low, high) or None), ...)): by feature, rising float32 edges or None for a categorical one, its number of
 * bins, and the range of its training data. */
static PyObject *bins_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *features;
    if (!PyArg_ParseTuple(args, "O!", &PyTuple_Type, &features)) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(features), all = 0;
    Bins *self = (Bins *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    PyObject *edges;
    Py_ssize_t bins;
    float low, high;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!read_feature(PyTuple_GET_ITEM(features, i), &edges, &bins, &low, &high)) goto fail;
        all += edges == Py_None ? 0 : PyTuple_GET_SIZE(edges);
    }
    self->bins = PyMem_Calloc(count ? count : 1, sizeof(FeatureBins));
    self->edges = PyMem_Calloc(all ? all : 1, sizeof(float));
    if (self->bins == NULL || self->edges == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    Py_ssize_t place = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        read_feature(PyTuple_GET_ITEM(features, i), &edges, &bins, &low, &high);
        Py_ssize_t own = edges == Py_None ? 0 : PyTuple_GET_SIZE(edges);
        if (bins < 2 || (edges != Py_None && bins != own + 2)) {
            PyErr_SetString(PyExc_ValueError, "the bins do not fit the edges");
            goto fail;
        }
        self->bins[i] = (FeatureBins){.start = self->size,
                                      .missing = self->size + bins - 1,
                                      .other = edges == Py_None ? self->size + bins - 2 : -1,
                                      .first = place,
                                      .edges = own,
                                      .outside = self->size, /* nothing is ever added where there is no range */
                                      .low = low,
                                      .high = high};
        for (Py_ssize_t e = 0; e < own; e++) self->edges[place++] = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(edges, e));
        if (PyErr_Occurred()) goto fail;
        self->size += bins;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (self->bins[i].other < 0 && (isfinite(self->bins[i].low) || isfinite(self->bins[i].high)))
            self->bins[i].outside = self->size++;
    self->count = count;
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

/* Missing is not out of range. */
static inline int64_t is_outside(const FeatureBins *bins, float value) { return (value < bins->low) | (value > bins->high); }

static inline int64_t bin_of(const FeatureBins *bins, const float *edges, float value) {
    if (isnan(value)) return bins->other >= 0 && is_unseen(value) ? bins->other : bins->missing;
    if (bins->other >= 0) {
        int64_t last = bins->other - bins->start;
        int64_t code = value < 0 ? last : value > (float)last ? last : (int64_t)value;
        return bins->start + code;
    }
    int64_t above = 0;
    for (int64_t e = 0; e < bins->edges; e++) above += value > edges[bins->first + e];
    return bins->start + above;
}

/* Four rows at a time share the edges, in registers. */
#define LANES 4
#define BLOCK 64 /* rows whose values stay in the nearest cache from one feature to the next */
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));

/* Count one feature of some rows, whose values are `stride` apart. */
static void count_column(const FeatureBins *bins, const float *edges, const float *from, Py_ssize_t stride, Py_ssize_t rows,
                         int64_t *counts) {
    int64_t outside = 0;
    Py_ssize_t r = 0;
    if (bins->other < 0) {
        Ints out = {0};
        for (; r + LANES <= rows; r += LANES, from += LANES * stride) {
            Floats values = {from[0], from[stride], from[2 * stride], from[3 * stride]};
            Ints above = {0}; /* less by one for each edge: what is true is -1 */
            for (int64_t e = 0; e < bins->edges; e++) above += values > edges[bins->first + e];
            Ints missing = values != values;
            out += (values < bins->low) | (values > bins->high);
            for (int i = 0; i < LANES; i++) counts[missing[i] ? bins->missing : bins->start - above[i]]++;
        }
        for (int i = 0; i < LANES; i++) outside -= out[i];
    }
    for (; r < rows; r++, from += stride) {
        counts[bin_of(bins, edges, *from)]++;
        outside += is_outside(bins, *from);
    }
    counts[bins->outside] += outside;
}

/* count(matrix, scores, counters): add these rows to the int64 counters; float32[rows, features], float64[rows]. */
static PyObject *bins_count(Bins *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "expected count(matrix, scores, counters)");
    Py_buffer matrix, scores, counters;
    if (hold_buffer(args[1], &scores, sizeof(double), 0, 0) < 0) return NULL;
    Py_ssize_t rows = scores.len / (Py_ssize_t)sizeof(double), width = self->count - 1;
    if (hold_buffer(args[0], &matrix, sizeof(float), rows * width, 0) < 0) {
        PyBuffer_Release(&scores);
        return NULL;
    }
    if (hold_buffer(args[2], &counters, sizeof(int64_t), self->size, 1) < 0) {
        PyBuffer_Release(&scores);
        PyBuffer_Release(&matrix);
        return NULL;
    }
    const float *values = matrix.buf;
    int64_t *counts = counters.buf;
    for (Py_ssize_t first = 0; first < rows; first += BLOCK) {
        Py_ssize_t some = rows - first < BLOCK ? rows - first : BLOCK;
        for (Py_ssize_t c = 0; c < width; c++)
            count_column(&self->bins[c], self->edges, values + first * width + c, width, some, counts);
    }
    for (Py_ssize_t r = 0; r < rows; r++)
        counts[bin_of(&self->bins[width], self->edges, (float)((double *)scores.buf)[r])]++;
    PyBuffer_Release(&scores);
    PyBuffer_Release(&matrix);
    PyBuffer_Release(&counters);
    Py_RETURN_NONE;
}

static PyMethodDef bins_methods[] = {
    {"count", (PyCFunction)(void (*)(void))bins_count, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot bins_slots[] = {{Py_tp_new, bins_new},
                                   {Py_tp_dealloc, bins_dealloc},
                                   {Py_tp_methods, bins_methods},
                                   {Py_tp_doc, "Counts values into the bins of the training data, and those out of its range."},
                                   {0, NULL}};
static PyType_Spec bins_spec = {"perennial_native._rows.Bins", sizeof(Bins), 0, Py_TPFLAGS_DEFAULT, bins_slots};

/* ---- ids: UUIDs of version 7 (RFC 9562) whose last 24 bits tell which model version answered ---- */

static uint64_t mix(uint64_t x) { /* the finaliser of splitmix64 (Steele, Lea, Flood 2014) */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t check_of(uint64_t high, uint64_t low, uint64_t version) {
    return mix(mix(high ^ version) ^ (low >> 24)) & 0xffffffu;
}

static PyObject *uuid_text(uint64_t high, uint64_t low) {
    static const char hex[] = "0123456789abcdef";
    static const int places[] = {0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17,
                                 19, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35};
    PyObject *text = PyUnicode_New(36, 127);
    if (text == NULL) return NULL;
    Py_UCS1 *out = PyUnicode_1BYTE_DATA(text);
    out[8] = out[13] = out[18] = out[23] = '-';
    for (int i = 0; i < 16; i++) {
        out[places[i]] = hex[(high >> (60 - 4 * i)) & 15];
        out[places[16 + i]] = hex[(low >> (60 - 4 * i)) & 15];
    }
    return text;
}

/* ids(milliseconds, noise, version): one id per 8 bytes of noise. */
static PyObject *make_ids(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 || !PyBytes_CheckExact(args[1])) return PyErr_Format(PyExc_TypeError, "expected ids(milliseconds, noise, version)");
    uint64_t moment = PyLong_AsUnsignedLongLongMask(args[0]), version = PyLong_AsUnsignedLongLongMask(args[2]);
    if (PyErr_Occurred()) return NULL;
    Py_ssize_t count = PyBytes_GET_SIZE(args[1]) / 8;
    PyObject *found = PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        uint64_t noise;
        memcpy(&noise, PyBytes_AS_STRING(args[1]) + 8 * i, sizeof noise);
        uint64_t high = (moment << 16) | 0x7000u | (noise >> 52);
        uint64_t low = (UINT64_C(2) << 62) | ((noise & 0x3fffffffffu) << 24);
        PyObject *id = uuid_text(high, low | check_of(high, low, version));
        if (id == NULL) {
            Py_DECREF(found);
            return NULL;
        }
        PyList_SET_ITEM(found, i, id);
    }
    return found;
}

/* check(high, low, version): the last 24 bits that an id with these two halves has if `version` answered. */
static PyObject *id_check(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "expected check(high, low, version)");
    uint64_t high = PyLong_AsUnsignedLongLongMask(args[0]), low = PyLong_AsUnsignedLongLongMask(args[1]);
    uint64_t version = PyLong_AsUnsignedLongLongMask(args[2]);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLongLong(check_of(high, low, version));
}

/* ---- scan: the head of a plain POST ---- */

static int same_name(const char *text, Py_ssize_t length, const char *name) {
    if ((Py_ssize_t)strlen(name) != length) return 0;
    for (Py_ssize_t i = 0; i < length; i++)
        if ((text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]) != name[i]) return 0;
    return 1;
}

static int starts_with(const char *text, Py_ssize_t length, const char *name) {
    Py_ssize_t own = (Py_ssize_t)strlen(name);
    return length >= own && same_name(text, own, name);
}

/* RFC 9110, 5.6.2: the characters of a header's name. */
static int is_token(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c > 32 && c < 127 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

typedef struct {
    const char *path, *authorization, *key;
    Py_ssize_t path_length, authorization_length, key_length, content_length, body;
} Head;

/* Headers that change how a request is read, other than the two below: a real parser must see them. */
static const char *const meaningful[] = {"transfer-encoding", "expect", "content-encoding", "upgrade", "te", "trailer",
                                         "inference-header-content-length", "http2-settings", NULL};

/* One header; 0 when it is not plain. */
static int take_header(Head *head, const char *name, Py_ssize_t length, const char *value, Py_ssize_t size) {
    if (same_name(name, length, "content-length")) {
        if (head->content_length >= 0 || size < 1 || size > 9) return 0;
        head->content_length = 0;
        for (Py_ssize_t i = 0; i < size; i++) {
            if (value[i] < '0' || value[i] > '9') return 0;
            head->content_length = head->content_length * 10 + (value[i] - '0');
        }
        return 1;
    }
    if (same_name(name, length, "content-type")) return same_name(value, size, "application/json");
    if (same_name(name, length, "connection")) return same_name(value, size, "keep-alive");
    if (same_name(name, length, "authorization")) {
        if (head->authorization != NULL) return 0;
        head->authorization = value;
        head->authorization_length = size;
        return 1;
    }
    if (same_name(name, length, "x-api-key")) {
        if (head->key != NULL) return 0;
        head->key = value;
        head->key_length = size;
        return 1;
    }
    if (starts_with(name, length, "x-perennial-")) return 0;
    for (int i = 0; meaningful[i] != NULL; i++)
        if (same_name(name, length, meaningful[i])) return 0;
    return 1;
}

/* The head of `POST path HTTP/1.1` in text[0:length]; 0 when it is not complete or not plain. */
static int read_head(const char *text, Py_ssize_t length, Head *head) {
    *head = (Head){.path = text + 5, .content_length = -1};
    if (length < 32 || memcmp(text, "POST /", 6) != 0) return 0;
    Py_ssize_t at = 5;
    while (at < length && text[at] != ' ') {
        unsigned char c = (unsigned char)text[at];
        if (c <= 32 || c >= 127 || c == '%' || c == '?' || c == '#') return 0;
        at++;
    }
    head->path_length = at - 5;
    if (length - at < 11 || memcmp(text + at, " HTTP/1.1\r\n", 11) != 0) return 0;
    at += 11;
    for (;;) {
        if (length - at < 2) return 0;
        if (text[at] == '\r' && text[at + 1] == '\n') break;
        Py_ssize_t name = at;
        while (at < length && is_token((unsigned char)text[at])) at++;
        Py_ssize_t name_length = at - name;
        if (name_length == 0 || at >= length || text[at] != ':') return 0;
        at++;
        while (at < length && (text[at] == ' ' || text[at] == '\t')) at++;
        Py_ssize_t value = at;
        while (at < length && (unsigned char)text[at] >= 32 && text[at] != 127) at++;
        if (length - at < 2 || text[at] != '\r' || text[at + 1] != '\n') return 0;
        Py_ssize_t value_length = at - value;
        while (value_length > 0 && text[value + value_length - 1] == ' ') value_length--;
        if (!take_header(head, text + name, name_length, text + value, value_length)) return 0;
        at += 2;
    }
    head->body = at + 2;
    return head->content_length >= 0;
}

static PyObject *bytes_or_none(const char *text, Py_ssize_t length) {
    return text == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(text, length);
}

/* scan(data): (path, where the body begins, authorization or None, x-api-key or None) of one whole plain POST, or None. */
static PyObject *scan(PyObject *module, PyObject *data) {
    Head head;
    if (!PyBytes_CheckExact(data)) return PyErr_Format(PyExc_TypeError, "expected bytes");
    if (!read_head(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &head) ||
        PyBytes_GET_SIZE(data) - head.body != head.content_length)
        Py_RETURN_NONE;
    return Py_BuildValue("(y#nNN)", head.path, head.path_length, head.body,
                         bytes_or_none(head.authorization, head.authorization_length),
                         bytes_or_none(head.key, head.key_length));
}

/* ---- objects: rows word for word, and the names of their columns, to JSON objects ---- */

/* Past one value of a plain row. */
static void skip_value(Text *text) {
    if (*text->at == '"') {
        do text->at++;
        while (text->at < text->end && *text->at != '"');
        if (text->at < text->end) text->at++;
        return;
    }
    while (text->at < text->end && *text->at != ',' && *text->at != ']') text->at++;
}

/* One row, `[1, "a"]`, as an object into the journal; 0 without room for it. */
static int note_object(Journal *journal, PyObject *labels, Text *text) {
    if (!reserve(journal, 2)) return 0;
    note(journal, "{", 1);
    int first = 1;
    for (Py_ssize_t c = 0; c < PyTuple_GET_SIZE(labels); c++) {
        text->at++; /* the bracket or the comma before */
        skip_space(text);
        const char *from = text->at;
        if (text->at >= text->end) return 0;
        skip_value(text);
        PyObject *label = PyTuple_GET_ITEM(labels, c);
        if (label != Py_None) {
            const char *to = text->at;
            while (to > from && (to[-1] == ' ' || to[-1] == '\n' || to[-1] == '\r' || to[-1] == '\t')) to--;
            if (!reserve(journal, PyBytes_GET_SIZE(label) + (to - from) + 2)) return 0;
            if (!first) note(journal, ",", 1);
            note(journal, PyBytes_AS_STRING(label), PyBytes_GET_SIZE(label));
            note(journal, from, to - from);
            first = 0;
        }
        skip_space(text);
    }
    if (!reserve(journal, 1)) return 0;
    note(journal, "}", 1);
    return 1;
}

/* objects(labels, text, ends): a JSON object by row, with the values that have a label. */
static PyObject *objects(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3 || !PyTuple_CheckExact(args[0]) || !PyBytes_CheckExact(args[1]) || !PyBytes_CheckExact(args[2]))
        return PyErr_Format(PyExc_TypeError, "expected objects(labels, text, ends)");
    for (Py_ssize_t c = 0; c < PyTuple_GET_SIZE(args[0]); c++)
        if (PyTuple_GET_ITEM(args[0], c) != Py_None && !PyBytes_CheckExact(PyTuple_GET_ITEM(args[0], c)))
            return PyErr_Format(PyExc_TypeError, "expected labels as bytes, or None");
    const int32_t *ends = (const int32_t *)PyBytes_AS_STRING(args[2]);
    Py_ssize_t rows = PyBytes_GET_SIZE(args[2]) / (Py_ssize_t)sizeof(int32_t), start = 0;
    Journal journal = {0};
    PyObject *found = PyList_New(rows);
    for (Py_ssize_t r = 0; found != NULL && r < rows; r++) {
        PyObject *value = NULL;
        journal.size = 0;
        if (ends[r] < start || ends[r] > PyBytes_GET_SIZE(args[1]))
            PyErr_SetString(PyExc_ValueError, "the ends are not in the text");
        else {
            Text text = {PyBytes_AS_STRING(args[1]) + start, PyBytes_AS_STRING(args[1]) + ends[r]};
            if (note_object(&journal, args[0], &text))
                value = PyUnicode_DecodeUTF8(journal.text, journal.size, NULL);
            else
                PyErr_SetString(PyExc_ValueError, "a row has fewer values than there are labels");
        }
        if (value == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, r, value);
        start = ends[r];
    }
    PyMem_Free(journal.text);
    return found;
}

/* ---- the module ---- */

static PyMethodDef functions[] = {
    {"scan", scan, METH_O, NULL},
    {"objects", (PyCFunction)(void (*)(void))objects, METH_FASTCALL, NULL},
    {"ids", (PyCFunction)(void (*)(void))make_ids, METH_FASTCALL, NULL},
    {"id_check", (PyCFunction)(void (*)(void))id_check, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    PyType_Spec *specs[] = {&intake_spec, &assembler_spec, &bins_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromSpec(specs[i]);
        if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0) {
            Py_XDECREF(type);
            return -1;
        }
        Py_DECREF(type);
    }
    return PyModule_AddIntConstant(module, "UNSEEN_BITS", UNSEEN_BITS);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_rows", "See _rows.pyi.", 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void) { return PyModuleDef_Init(&module_definition); }
