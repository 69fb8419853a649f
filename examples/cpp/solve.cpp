// Solves puzzles with an OpenVINO or ONNX bundle through OpenVINO's C++ API, and tests the bundle on its examples.
//
//   solve BUNDLE                answers the bundle's own examples, and says whether they are equal to Python's
//   solve BUNDLE PUZZLE...      answers puzzles; halts when the model says so

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using nlohmann::json;
using Tokens = std::vector<int32_t>;

struct Answer {
    Tokens tokens;
    int steps;
    std::vector<float> q;  // the halting head's values: halt, continue
};

// A bundle's graphs with the loop that they have; one puzzle a call.
class Model {
public:
    explicit Model(const std::string& folder) : facts(read(folder + "/facts.json")) {
        ov::Core core;
        for (const auto& [graph, each] : facts.at("graphs").items()) {
            auto model = core.read_model(folder + "/" + each.at("file").get<std::string>());
            auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
            calls[graph] = compiled.create_infer_request();
        }
        rows = facts.at("batch").is_number() ? facts["batch"].get<size_t>() : 1;
    }

    Answer solve(const Tokens& question, const std::string& halt, int max_think_steps, int puzzle_row = 0) {
        auto& first = calls.at(facts.at("loop") == "graph" ? "model" : "start");
        Tokens board;  // a fixed batch is filled up with copies
        for (size_t row = 0; row < rows; row++) board.insert(board.end(), question.begin(), question.end());
        Tokens kinds(rows, puzzle_row);  // rows of the model's table
        first.set_tensor("tokens", ov::Tensor(ov::element::i32, {rows, question.size()}, board.data()));
        if (!facts.at("puzzle_identifiers").is_null())
            first.set_tensor("puzzle_identifiers", ov::Tensor(ov::element::i32, {rows}, kinds.data()));
        if (facts["loop"] == "graph") {
            int32_t limit = max_think_steps, number = facts.at("halting").at("modes").at(halt).get<int32_t>();
            first.set_tensor("max_think_steps", ov::Tensor(ov::element::i32, {}, &limit));
            first.set_tensor("halt", ov::Tensor(ov::element::i32, {}, &number));
            first.infer();
            auto answer = first.get_tensor("answer").data<int32_t>();
            auto steps = first.get_tensor("steps").data<int32_t>()[0];
            auto q = first.get_tensor("q").data<float>();
            return {Tokens(answer, answer + question.size()), steps, {q[0], q[1]}};
        }
        if (halt == "verified") throw std::invalid_argument("this program has no rules to verify by");
        first.infer();
        auto& segment = calls.at("segment");
        segment.set_tensor("e", first.get_tensor("e"));
        for (const auto& [state, next] : facts.at("next").items()) segment.set_tensor(state, first.get_tensor(state));
        for (int step = 1;; step++) {
            segment.infer();
            auto q = segment.get_tensor("q").data<float>();
            bool alone = facts["halting"].at("no_ACT_continue").get<bool>();
            bool halted = halt == "learned" && q[0] > (alone ? 0.0f : q[1]);
            if (halted || step == max_think_steps)
                return {best(segment.get_tensor("logits"), question.size()), step, {q[0], q[1]}};
            // What a segment gave is what the next one takes: the two tensors change places.
            for (const auto& [state, next] : facts["next"].items()) {
                auto before = segment.get_tensor(state), after = segment.get_tensor(next.get<std::string>());
                segment.set_tensor(state, after);
                segment.set_tensor(next.get<std::string>(), before);
            }
        }
    }

    // One puzzle as tokens; each symbol is one byte here, as in Sudokus and mazes.
    Tokens parse(const std::string& text) const {
        Tokens tokens;
        for (char symbol : text) {
            auto found = facts.at("symbols").find(std::string(1, symbol));
            if (found == facts["symbols"].end())
                throw std::invalid_argument(std::string("'") + symbol + "' is no symbol of " + facts["task"].get<std::string>());
            tokens.push_back(found->get<int32_t>());
        }
        if (tokens.size() != facts.at("seq_len").get<size_t>())
            throw std::invalid_argument("a puzzle has " + facts["seq_len"].dump() + " symbols, not " + std::to_string(tokens.size()));
        return tokens;
    }

    std::string format(const Tokens& tokens) const {
        std::string text;
        for (int32_t token : tokens)
            text += token ? facts.at("vocabulary")[token].get<std::string>() : facts.at("padding").get<std::string>();
        return text;
    }

    const json facts;

private:
    static json read(const std::string& file) {
        std::ifstream content(file);
        if (!content) throw std::invalid_argument("cannot read " + file + "; give a bundle's folder");
        return json::parse(content);
    }

    // The token with the highest score in each cell of the first row.
    Tokens best(const ov::Tensor& logits, size_t cells) const {
        const size_t width = logits.get_shape().back();
        const float* scores = logits.data<float>();
        Tokens tokens(cells);
        for (size_t cell = 0; cell < cells; cell++, scores += width)
            tokens[cell] = int32_t(std::max_element(scores, scores + width) - scores);
        return tokens;
    }

    std::map<std::string, ov::InferRequest> calls;
    size_t rows;
};

int selftest(Model& model) {
    const auto& asked = model.facts.at("asked");
    if (asked.is_null()) throw std::invalid_argument("the bundle carries no examples: it was not gated");
    const auto& examples = model.facts.at("examples");
    size_t equal = 0;
    for (const auto& each : examples) {
        auto found = model.solve(each.at("question_tokens"), asked.at("halt"), asked.at("max_think_steps"), each.at("puzzle_row"));
        bool same = found.tokens == each.at("answer_tokens").get<Tokens>() && found.steps == each.at("steps").get<int>();
        for (size_t i = 0; same && !each.at("q").is_null() && i < 2; i++)
            same = std::abs(found.q[i] - each["q"][i].get<float>()) <= asked.at("q_tolerance").get<float>();
        equal += same;
    }
    std::cout << (equal == examples.size() ? "equal: " : "not equal: ") << equal << " of " << examples.size()
              << " examples as in Python (answer, segments, q within " << asked.at("q_tolerance") << ")\n";
    return equal == examples.size() ? 0 : 1;
}

int main(int count, char** arguments) try {
    if (count < 2) throw std::invalid_argument("give a bundle's folder, and puzzles: solve BUNDLE [PUZZLE...]");
    Model model(arguments[1]);
    if (count == 2) return selftest(model);
    for (int i = 2; i < count; i++) {
        auto found = model.solve(model.parse(arguments[i]), "learned", model.facts.at("halting").at("max_think_steps"));
        std::cout << model.format(found.tokens) << ' ' << found.steps << ' ' << found.q[0] << ' ' << found.q[1] << '\n';
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "solve: " << error.what() << '\n';
    return 2;
}
