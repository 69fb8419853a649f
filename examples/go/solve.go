// Solves puzzles with an OpenVINO or ONNX bundle through OpenVINO's C API, and tests the bundle on its examples.
//
//	solve BUNDLE             answers the bundle's own examples, and says whether they are equal to Python's
//	solve BUNDLE PUZZLE...   answers puzzles; halts when the model says so
package main

// #include <stdlib.h>
// #include <openvino/c/openvino.h>
// static ov_status_e compile(ov_core_t *core, const char *file, ov_compiled_model_t **model) { // Go calls no "..."
//   return ov_core_compile_model_from_file(core, file, "CPU", 2, model, "INFERENCE_PRECISION_HINT", "f32");
// }
import "C"

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"unsafe"
)

type example struct {
	Question   []int32   `json:"question_tokens"`
	Answer     []int32   `json:"answer_tokens"`
	Steps      int       `json:"steps"`
	Q          []float64 `json:"q"`
	Row        int32     `json:"puzzle_row"` // of the model's table
}

type facts struct {
	Task       string                           `json:"task"`
	Loop       string                           `json:"loop"`
	Batch      any                              `json:"batch"`
	Cells      int                              `json:"seq_len"`
	Vocabulary []string                         `json:"vocabulary"`
	Symbols    map[string]int32                 `json:"symbols"`
	Padding    string                           `json:"padding"`
	Graphs     map[string]struct{ File string } `json:"graphs"`
	Next       map[string]string                `json:"next"`
	Kinds      *struct{ Count int }             `json:"puzzle_identifiers"`
	Halting    struct {
		MaxThinkSteps int              `json:"max_think_steps"`
		Alone         bool             `json:"no_ACT_continue"`
		Modes         map[string]int32 `json:"modes"`
	} `json:"halting"`
	Asked *struct {
		Halt          string  `json:"halt"`
		MaxThinkSteps int     `json:"max_think_steps"`
		Tolerance     float64 `json:"q_tolerance"`
	} `json:"asked"`
	Examples []example `json:"examples"`
}

type model struct {
	facts
	rows  int
	calls map[string]*C.ov_infer_request_t
}

type answer struct {
	tokens []int32
	steps  int
	q      [2]float32
}

func check(status C.ov_status_e) {
	if status != C.OK {
		panic(C.GoString(C.ov_get_error_info(status)) + ": " + C.GoString(C.ov_get_last_err_msg()))
	}
}

func open(folder string) *model {
	content, err := os.ReadFile(filepath.Join(folder, "facts.json"))
	if err != nil {
		panic(err)
	}
	m := &model{rows: 1, calls: map[string]*C.ov_infer_request_t{}}
	if err := json.Unmarshal(content, &m.facts); err != nil {
		panic(err)
	}
	if rows, fixed := m.Batch.(float64); fixed {
		m.rows = int(rows)
	}
	var core *C.ov_core_t
	check(C.ov_core_create(&core))
	for graph, each := range m.Graphs {
		file := C.CString(filepath.Join(folder, each.File))
		defer C.free(unsafe.Pointer(file))
		var compiled *C.ov_compiled_model_t
		var call *C.ov_infer_request_t
		check(C.compile(core, file, &compiled))
		check(C.ov_compiled_model_create_infer_request(compiled, &call))
		m.calls[graph] = call
	}
	return m
}

// get gives a tensor of a call; set puts one there; give puts numbers there, copied into memory that Go does not move.
func get(call *C.ov_infer_request_t, name string) (tensor *C.ov_tensor_t) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	check(C.ov_infer_request_get_tensor(call, text, &tensor))
	return tensor
}

func set(call *C.ov_infer_request_t, name string, tensor *C.ov_tensor_t) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	check(C.ov_infer_request_set_tensor(call, text, tensor))
	C.ov_tensor_free(tensor)
}

func give(call *C.ov_infer_request_t, name string, values []int32, dims ...C.int64_t) {
	var shape C.ov_shape_t
	if len(dims) > 0 {
		check(C.ov_shape_create(C.int64_t(len(dims)), &dims[0], &shape))
		defer C.ov_shape_free(&shape)
	}
	var tensor *C.ov_tensor_t
	check(C.ov_tensor_create(C.I32, shape, &tensor))
	copy(numbers[int32](tensor, len(values)), values)
	set(call, name, tensor)
}

func numbers[T int32 | float32](tensor *C.ov_tensor_t, count int) []T {
	var data unsafe.Pointer
	check(C.ov_tensor_data(tensor, &data))
	return unsafe.Slice((*T)(data), count)
}

func (m *model) solve(question []int32, halt string, maxThinkSteps int, puzzleRow int32) answer {
	first := m.calls["start"]
	if m.Loop == "graph" {
		first = m.calls["model"]
	}
	var board, kinds []int32 // a fixed batch is filled up with copies
	for row := 0; row < m.rows; row++ {
		board, kinds = append(board, question...), append(kinds, puzzleRow)
	}
	give(first, "tokens", board, C.int64_t(m.rows), C.int64_t(m.Cells))
	if m.Kinds != nil {
		give(first, "puzzle_identifiers", kinds, C.int64_t(m.rows))
	}
	if m.Loop == "graph" {
		give(first, "max_think_steps", []int32{int32(maxThinkSteps)})
		give(first, "halt", []int32{m.Halting.Modes[halt]})
		check(C.ov_infer_request_infer(first))
		tokens := append([]int32{}, numbers[int32](get(first, "answer"), m.Cells)...)
		q := numbers[float32](get(first, "q"), 2)
		return answer{tokens, int(numbers[int32](get(first, "steps"), 1)[0]), [2]float32{q[0], q[1]}}
	}
	check(C.ov_infer_request_infer(first))
	segment := m.calls["segment"]
	set(segment, "e", get(first, "e"))
	for state := range m.Next {
		set(segment, state, get(first, state))
	}
	for step := 1; ; step++ {
		check(C.ov_infer_request_infer(segment))
		q := numbers[float32](get(segment, "q"), 2)
		bar := q[1]
		if m.Halting.Alone {
			bar = 0
		}
		if halt == "learned" && q[0] > bar || step == maxThinkSteps {
			return answer{m.best(numbers[float32](get(segment, "logits"), m.Cells*len(m.Vocabulary))), step, [2]float32{q[0], q[1]}}
		}
		for state, next := range m.Next { // what a segment gave is what the next one takes: they change places
			before := get(segment, state)
			set(segment, state, get(segment, next))
			set(segment, next, before)
		}
	}
}

// best is the token with the highest score in each cell.
func (m *model) best(scores []float32) []int32 {
	tokens, width := make([]int32, m.Cells), len(m.Vocabulary)
	for cell := range tokens {
		for token, score := range scores[cell*width : (cell+1)*width] {
			if score > scores[cell*width+int(tokens[cell])] {
				tokens[cell] = int32(token)
			}
		}
	}
	return tokens
}

func (m *model) selftest() int {
	if m.Asked == nil {
		panic("the bundle carries no examples: it was not gated")
	}
	equal := 0
	for _, each := range m.Examples {
		found := m.solve(each.Question, m.Asked.Halt, m.Asked.MaxThinkSteps, each.Row)
		same := found.steps == each.Steps && fmt.Sprint(found.tokens) == fmt.Sprint(each.Answer)
		for i, q := range each.Q {
			same = same && math.Abs(float64(found.q[i])-q) <= m.Asked.Tolerance
		}
		if same {
			equal++
		}
	}
	word := map[bool]string{true: "equal", false: "not equal"}[equal == len(m.Examples)]
	fmt.Printf("%s: %d of %d examples as in Python (answer, segments, q within %g)\n", word, equal, len(m.Examples), m.Asked.Tolerance)
	return map[bool]int{true: 0, false: 1}[equal == len(m.Examples)]
}

func (m *model) show(text string) {
	var question []int32
	for _, symbol := range text {
		token, known := m.Symbols[string(symbol)]
		if !known {
			panic(fmt.Sprintf("%q is no symbol of %s", symbol, m.Task))
		}
		question = append(question, token)
	}
	if len(question) != m.Cells {
		panic(fmt.Sprintf("a puzzle has %d symbols, not %d", m.Cells, len(question)))
	}
	found := m.solve(question, "learned", m.Halting.MaxThinkSteps, 0)
	for _, token := range found.tokens {
		if token == 0 {
			fmt.Print(m.Padding)
		} else {
			fmt.Print(m.Vocabulary[token])
		}
	}
	fmt.Println("", found.steps, found.q[0], found.q[1])
}

func main() {
	defer func() {
		if wrong := recover(); wrong != nil {
			fmt.Fprintln(os.Stderr, "solve:", wrong)
			os.Exit(2)
		}
	}()
	if len(os.Args) < 2 {
		panic("give a bundle's folder, and puzzles: solve BUNDLE [PUZZLE...]")
	}
	m := open(os.Args[1])
	if len(os.Args) == 2 {
		os.Exit(m.selftest())
	}
	for _, text := range os.Args[2:] {
		m.show(text)
	}
}
