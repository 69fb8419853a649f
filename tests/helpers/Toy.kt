import hrm.*
import java.io.File
import org.json.JSONObject

/** The toy of the tests, on 4x4 Sudokus: a segment fills every cell that has a single candidate left. */
class Toy : Graphs {
    override fun begin(tokens: IntArray, puzzleRow: Int) = object : Thinking {
        val known = IntArray(16) { maxOf(0, tokens[it] - 1) }

        private fun candidates(cell: Int): List<Int> {
            val (row, column) = Pair(cell / 4, cell % 4)
            val peers = (0 until 16).filter {
                it / 4 == row || it % 4 == column || (it / 8 == row / 2 && it % 4 / 2 == column / 2)
            }
            return if (known[cell] > 0) listOf() else (1..4).filter { digit -> peers.none { known[it] == digit } }
        }

        override fun segment(): Segment {
            val single = (0 until 16).associateWith { candidates(it) }.filterValues { it.size == 1 }
            single.forEach { (cell, digits) -> known[cell] = digits[0] }
            val logits = FloatArray(16 * 6) { index ->
                val (cell, token) = Pair(index / 6, index % 6)
                if (token < 2) -1f else if (known[cell] == token - 1) 10f else if (token - 1 in candidates(cell)) 1f else 0f
            }
            return Segment(logits, floatArrayOf(known.count { it > 0 }.toFloat(), 15.5f + 0.05f * puzzleRow))
        }

        override fun close() = Unit
    }

    override fun close() = Unit
}

fun main(arguments: Array<String>) {
    val hrm = Hrm(JSONObject(File(arguments[0]).readText()), Toy())
    for (line in File(arguments[1]).readLines()) {
        val words = line.split("\t")
        val question = hrm.puzzles.parse(words[0])
        println(when (words.size) {
            1 -> Halt.values().joinToString(" ") { halt ->
                hrm.solve(question, halt).run { "${hrm.puzzles.format(tokens)} $steps $halted ${q[0]} ${q[1]}" }
            } + " " + hrm.solveWithRetries(question, 5, Halt.LEARNED).run {
                "${hrm.puzzles.format(answer.tokens)} $verified $variant $segments"
            }
            else -> hrm.puzzles.verify(question, hrm.puzzles.parse(words[1])).toString()
        })
    }
    println(if (hrm.puzzles.hasRules) hrm.selftest() else "")
}
