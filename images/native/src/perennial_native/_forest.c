/* A forest that answers: see _forest.pyi. */
#include "_forest_check.h"
#include "_forest_check_fast.h"
#include "_forest_common.h"
#include "_forest_predict.h"

enum { RELEASE_FROM = 256 }; /* rows from which giving other threads a turn is worth its price */

typedef struct {
    PyObject *empty;     /* numpy.empty */
    PyObject *as_matrix; /* numpy.ascontiguousarray */
    PyObject *float32;
    PyTypeObject *type;
} State;

static struct PyModuleDef module;

static const char *const TRANSFORM_NAMES[TRANSFORMS] = {"identity", "sigmoid", "exp", "hinge", "softprob", "softmax"};

static int transform_named(const char *name) {
    for (int i = 0; i < TRANSFORMS; i++)
        if (strcmp(name, TRANSFORM_NAMES[i]) == 0) return i;
    PyErr_Format(PyExc_ValueError, "the flattened forest makes predictions by %.40s, which this release does not know", name);
    return -1;
}

static void point(Forest *forest) {
    const Py_buffer *views = forest->views;
    forest->roots = views[ROOTS].buf;
    forest->groups = views[GROUPS].buf;
    forest->feature = views[FEATURE].buf;
    forest->threshold = views[THRESHOLD].buf;
    forest->left = views[LEFT].buf;
    forest->flags = views[FLAGS].buf;
    forest->set = views[SET].buf;
    forest->set_start = views[SET_START].buf;
    forest->set_bits = views[SET_BITS].buf;
    forest->leaves = views[LEAVES].buf;
    forest->base = views[BASE].buf;
    forest->number = views[NUMBER].buf;
    forest->cut_start = views[CUT_START].buf;
    forest->cuts = views[CUTS].buf;
    forest->column_start = views[COLUMN_START].buf;
    forest->shift = views[SHIFT].buf;
    forest->missing = views[MISSING].buf;
    forest->category = views[CATEGORY].buf;
    forest->category_column = views[CATEGORY_COLUMN].buf;
    forest->category_size = views[CATEGORY_SIZE].buf;
    forest->table_start = views[TABLE_START].buf;
    forest->tables = views[TABLES].buf;
    forest->narrow = views[NARROW].len ? views[NARROW].buf : NULL;
    forest->wide = views[WIDE].buf;
    forest->lane_column = views[LANE_COLUMN].buf;
    forest->lane_cut = views[LANE_CUT].buf;
    forest->perfect_leaf = views[PERFECT_LEAF].buf;
    forest->deep = views[DEEP].buf;
}

static PyObject *forest_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"features", "outputs", "transform", "arrays", NULL};
    Py_ssize_t features, outputs;
    const char *transform;
    PyObject *arrays;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nnsO:Forest", names, &features, &outputs, &transform, &arrays)) return NULL;
    int known = transform_named(transform);
    if (known < 0) return NULL;
    Forest *forest = (Forest *)type->tp_alloc(type, 0); /* zeroed: views that were not taken have no owner */
    if (forest == NULL) return NULL;
    forest->features = features;
    forest->outputs = outputs;
    forest->transform = (enum transform)known;
    for (int i = 0; i < ARRAYS; i++)
        if (get_array(arrays, &ARRAY_TYPES[i], &forest->views[i]) < 0) goto failed;
    point(forest);
    if (features < 1) {
        damaged("it has no features");
        goto failed;
    }
    if (check_trees(forest) < 0 || check_fast(forest) < 0) goto failed;
    forest->lanes = can_lanes(forest);
    return (PyObject *)forest;
failed:
    Py_DECREF(forest);
    return NULL;
}

static void forest_dealloc(Forest *forest) {
    PyTypeObject *type = Py_TYPE(forest);
    for (int i = 0; i < ARRAYS; i++)
        if (forest->views[i].obj != NULL) PyBuffer_Release(&forest->views[i]);
    type->tp_free(forest);
    Py_DECREF(type);
}

/* The matrix as float32[n, features] in one piece: itself, or a copy. */
static int get_matrix(const Forest *forest, State *state, PyObject *matrix, Py_buffer *view) {
    if (PyObject_GetBuffer(matrix, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0 ||
        !(view->format != NULL && strcmp(view->format, "f") == 0)) {
        if (PyErr_Occurred())
            PyErr_Clear();
        else
            PyBuffer_Release(view);
        PyObject *copy = PyObject_CallFunctionObjArgs(state->as_matrix, matrix, state->float32, NULL);
        if (copy == NULL) return -1;
        int got = PyObject_GetBuffer(copy, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT);
        Py_DECREF(copy);
        if (got < 0) return -1;
    }
    if (view->ndim == 2 && view->shape[1] == forest->features) return 0;
    if (view->ndim == 2)
        PyErr_Format(PyExc_ValueError, "the matrix has %zd columns; the forest reads %zd features", view->shape[1], forest->features);
    else
        PyErr_Format(PyExc_ValueError, "the matrix has %d dimensions; expected rows by %zd features", view->ndim, forest->features);
    PyBuffer_Release(view);
    return -1;
}

/* float64[rows], or float64[rows, outputs]. */
static PyObject *empty_answer(const Forest *forest, State *state, Py_ssize_t rows, Py_buffer *view) {
    PyObject *shape = forest->outputs == 1 ? PyLong_FromSsize_t(rows) : Py_BuildValue("(nn)", rows, forest->outputs);
    if (shape == NULL) return NULL;
    PyObject *answer = PyObject_CallOneArg(state->empty, shape);
    Py_DECREF(shape);
    if (answer == NULL) return NULL;
    if (PyObject_GetBuffer(answer, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) == 0) return answer;
    Py_DECREF(answer);
    return NULL;
}

static PyObject *forest_predict(Forest *forest, PyObject *matrix) {
    State *state = PyModule_GetState(PyType_GetModule(Py_TYPE(forest)));
    Py_buffer rows, out;
    if (get_matrix(forest, state, matrix, &rows) < 0) return NULL;
    Py_ssize_t count = rows.shape[0];
    PyObject *answer = empty_answer(forest, state, count, &out);
    if (answer != NULL) {
        PyThreadState *released = count >= RELEASE_FROM ? PyEval_SaveThread() : NULL;
        int done = predict_rows(forest, rows.buf, count, out.buf);
        if (released != NULL) PyEval_RestoreThread(released);
        PyBuffer_Release(&out);
        if (done < 0) {
            PyErr_NoMemory();
            Py_CLEAR(answer);
        }
    }
    PyBuffer_Release(&rows);
    return answer;
}

static PyMethodDef forest_methods[] = {
    {"predict", (PyCFunction)forest_predict, METH_O, "float64[n] or float64[n, outputs] of float32[n, features]; NaN is missing."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot forest_slots[] = {
    {Py_tp_new, forest_new},
    {Py_tp_dealloc, forest_dealloc},
    {Py_tp_methods, forest_methods},
    {Py_tp_doc, "Forest(features, outputs, transform, arrays): raises ValueError where the arrays are damaged."},
    {0, NULL},
};

static PyType_Spec forest_spec = {
    .name = "perennial_native._forest.Forest",
    .basicsize = sizeof(Forest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = forest_slots,
};

static int module_exec(PyObject *self) {
    State *state = PyModule_GetState(self);
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy == NULL) return -1;
    state->empty = PyObject_GetAttrString(numpy, "empty");
    state->as_matrix = PyObject_GetAttrString(numpy, "ascontiguousarray");
    state->float32 = PyObject_GetAttrString(numpy, "float32");
    Py_DECREF(numpy);
    if (state->empty == NULL || state->as_matrix == NULL || state->float32 == NULL) return -1;
    state->type = (PyTypeObject *)PyType_FromModuleAndSpec(self, &forest_spec, NULL);
    return state->type == NULL ? -1 : PyModule_AddType(self, state->type);
}

static int module_traverse(PyObject *self, visitproc visit, void *arg) {
    State *state = PyModule_GetState(self);
    Py_VISIT(state->empty);
    Py_VISIT(state->as_matrix);
    Py_VISIT(state->float32);
    Py_VISIT(state->type);
    return 0;
}

static int module_clear(PyObject *self) {
    State *state = PyModule_GetState(self);
    Py_CLEAR(state->empty);
    Py_CLEAR(state->as_matrix);
    Py_CLEAR(state->float32);
    Py_CLEAR(state->type);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_forest",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__forest(void) { return PyModuleDef_Init(&module); }
