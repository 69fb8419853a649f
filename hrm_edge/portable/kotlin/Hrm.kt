package hrm

import java.io.Closeable
import org.json.JSONArray
import org.json.JSONObject

/** When to stop: when the model says so, never early, or when the answer is right. */
enum class Halt(val text: String) { LEARNED("learned"), FIXED("fixed"), VERIFIED("verified") }

/** What the model makes of a puzzle: its last guess, the segments it took, whether the rule fired, and its q. */
class Answer(val tokens: IntArray, val steps: Int, val halted: Boolean, val q: FloatArray)

/** An answer after retries: `variant` 0 is the puzzle as asked; `segments` were thought over all attempts. */
class Retried(val answer: Answer, val verified: Boolean, val variant: Int, val segments: Int)

/** One segment's scores, cell by cell, and the two values of the halting head. */
class Segment(val logits: FloatArray, val q: FloatArray)

/** What runs a bundle's graphs; of the two calls it has the one of its loop. */
interface Graphs : Closeable {
    /** A loop on the host: begins a puzzle. */
    fun begin(tokens: IntArray, puzzleRow: Int): Thinking = error("this bundle's loop is in its graph")

    /** A loop in the graph: thinks until the rule of that number, or the number of segments, says stop. */
    fun answer(tokens: IntArray, puzzleRow: Int, maxThinkSteps: Int, halt: Int): Answer =
        error("this bundle's loop is on the host")
}

/** A puzzle that was begun. */
interface Thinking : Closeable {
    fun segment(): Segment
}

/** A Hierarchical Reasoning Model. May be used from several threads where its `graphs` may. */
class Hrm(private val facts: JSONObject, private val graphs: Graphs) : Closeable by graphs {
    val puzzles = Puzzles(facts)

    private val halting = facts.getJSONObject("halting")
    private val alone = halting.getBoolean("no_ACT_continue")
    val maxThinkSteps = halting.getInt("max_think_steps")

    /**
     * Answers one puzzle; `identifier` is the training data's. Throws IllegalArgumentException where it is none, the
     * rule cannot be asked for, or the model's table has no such identifier.
     */
    fun solve(
        question: IntArray,
        halt: Halt = Halt.LEARNED,
        maxThinkSteps: Int = this.maxThinkSteps,
        identifier: Int = 0
    ): Answer {
        puzzles.check(question)
        require(maxThinkSteps > 0) { "maxThinkSteps must be at least 1, not $maxThinkSteps" }
        require(halt != Halt.VERIFIED || puzzles.hasRules) { "this task has no rules to verify by" }
        val puzzleRow = rowOf(identifier)
        if (facts.getString("loop") == "graph") {
            val number = halting.getJSONObject("modes").optInt(halt.text, -1)
            require(number >= 0) { "the loop in this bundle's graph cannot tell ${halt.text}" }
            val found = graphs.answer(question, puzzleRow, maxThinkSteps, number)
            return Answer(found.tokens, found.steps, stops(question, found.tokens, found.q, halt), found.q)
        }
        graphs.begin(question, puzzleRow).use { thinking ->
            for (step in 1..maxThinkSteps) {
                val (guess, q) = thinking.segment().run { Pair(best(logits), q) }
                val halted = stops(question, guess, q, halt)
                if (halted || step == maxThinkSteps) return Answer(guess, step, halted, q)
            }
        }
        error("unreachable")
    }

    /** Thinks again, on up to `retries` other boards of the same puzzle, until an answer obeys the rules. */
    fun solveWithRetries(
        question: IntArray,
        retries: Int = 8,
        halt: Halt = Halt.VERIFIED,
        maxThinkSteps: Int = this.maxThinkSteps,
        identifier: Int = 0
    ): Retried {
        require(retries in 0..puzzles.variants.size) { "retries must be 0 to ${puzzles.variants.size}" }
        val first = solve(question, halt, maxThinkSteps, identifier)
        var segments = first.steps
        if (puzzles.verify(question, first.tokens)) return Retried(first, true, 0, segments)
        for (number in 1..retries) {
            val variant = puzzles.variants[number - 1]
            val again = solve(variant.apply(question), halt, maxThinkSteps, identifier)
            val tokens = variant.invert(again.tokens)
            segments += again.steps
            if (puzzles.verify(question, tokens)) {
                return Retried(Answer(tokens, again.steps, again.halted, again.q), true, number, segments)
            }
        }
        return Retried(first, false, 0, segments)
    }

    /** Asks the bundle's own examples here: "equal", or what differs from where it was gated. */
    fun selftest(): String {
        if (facts.isNull("asked")) return "this bundle carries no examples"
        val asked = facts.getJSONObject("asked")
        val halt = Halt.values().first { it.text == asked.getString("halt") }
        val examples = facts.getJSONArray("examples").objects()
        val differ = examples.filterNot { each ->
            val found = solve(
                each.ints("question_tokens"), halt, asked.getInt("max_think_steps"), each.getInt("puzzle_identifier")
            )
            found.tokens.contentEquals(each.ints("answer_tokens")) && found.steps == each.getInt("steps") &&
                (each.isNull("q") || found.q.indices.all {
                    Math.abs(found.q[it] - each.getJSONArray("q").getDouble(it)) <= asked.getDouble("q_tolerance")
                })
        }
        return if (differ.isEmpty()) "equal" else "not equal: ${differ.size} of ${examples.size} differ"
    }

    /** The row of the model's table that is this puzzle's: some exports kept the rows of a few puzzles only. */
    private fun rowOf(identifier: Int): Int {
        val table = facts.optJSONObject("puzzle_identifiers") ?: return 0
        val kept = table.optJSONArray("kept") ?: JSONArray("[[0, ${table.getInt("count") - 1}]]")
        var row = 0
        for (number in 0 until kept.length()) {
            val (first, last) = kept.getJSONArray(number).run { Pair(getInt(0), getInt(1)) }
            if (identifier in first..last) return row + identifier - first
            row += last - first + 1
        }
        throw IllegalArgumentException("this model knows no puzzle $identifier")
    }

    private fun stops(question: IntArray, guess: IntArray, q: FloatArray, halt: Halt) = when (halt) {
        Halt.LEARNED -> q[0] > (if (alone) 0f else q[1])
        Halt.FIXED -> false
        Halt.VERIFIED -> puzzles.verify(question, guess)
    }

    /** The token with the highest score in each cell; of equals the first. */
    private fun best(logits: FloatArray): IntArray {
        val width = puzzles.vocabularySize
        return IntArray(puzzles.cells) { cell ->
            var best = 0
            for (token in 1 until width) {
                if (logits[cell * width + token] > logits[cell * width + best]) best = token
            }
            best
        }
    }
}
