package hrm

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.IntBuffer
import org.json.JSONObject

/** Opens a bundle: the folder that holds `facts.json` and the graphs, copied out of an app's assets. */
fun openHrm(folder: File): Hrm {
    val facts = JSONObject(File(folder, "facts.json").readText())
    return Hrm(facts, OrtGraphs(folder, facts))
}

/** A bundle's graphs in ONNX Runtime, one puzzle a call; a fixed batch is filled up with copies. */
class OrtGraphs(folder: File, facts: JSONObject) : Graphs {
    private val environment = OrtEnvironment.getEnvironment()
    private val sessions: Map<String, OrtSession>
    private val next: Map<String, String>
    private val cells = facts.getInt("seq_len")
    private val width = facts.getJSONArray("vocabulary").length()
    private val rows = facts.optInt("batch", 1)
    private val identifiers = !facts.isNull("puzzle_identifiers")

    init {
        val files = facts.getJSONObject("graphs")
        sessions = files.keys().asSequence().associateWith {
            environment.createSession(File(folder, files.getJSONObject(it).getString("file")).path)
        }
        next = facts.getJSONObject("next").run { keys().asSequence().associateWith { getString(it) } }
    }

    override fun answer(tokens: IntArray, puzzleRow: Int, maxThinkSteps: Int, halt: Int): Answer {
        val given = puzzle(tokens, puzzleRow) +
            mapOf("max_think_steps" to scalar(maxThinkSteps), "halt" to scalar(halt))
        try {
            sessions.getValue("model").run(given).use { found ->
                val answer = IntArray(cells).also { found.tensor("answer").intBuffer.get(it) }
                return Answer(answer, found.tensor("steps").intBuffer.get(0), false, found.floats("q", 2))
            }
        } finally {
            given.values.forEach { it.close() }
        }
    }

    override fun begin(tokens: IntArray, puzzleRow: Int): Thinking {
        val given = puzzle(tokens, puzzleRow)
        val begun = try {
            sessions.getValue("start").run(given)
        } finally {
            given.values.forEach { it.close() }
        }
        return object : Thinking {
            private var state = next.keys.associateWith { begun.tensor(it) }
            private var last: OrtSession.Result? = null // owns the state's tensors, once there was a segment

            override fun segment(): Segment {
                val found = sessions.getValue("segment").run(state + ("e" to begun.tensor("e")))
                last?.close()
                last = found
                state = next.mapValues { found.tensor(it.value) }
                return Segment(found.floats("logits", cells * width), found.floats("q", 2))
            }

            override fun close() {
                last?.close()
                begun.close()
            }
        }
    }

    override fun close() = sessions.values.forEach { it.close() }

    private fun puzzle(tokens: IntArray, puzzleRow: Int): Map<String, OnnxTensor> {
        val board = IntArray(rows * cells) { tokens[it % cells] }
        val shape = longArrayOf(rows.toLong(), cells.toLong())
        val given = mutableMapOf("tokens" to OnnxTensor.createTensor(environment, IntBuffer.wrap(board), shape))
        if (identifiers) {
            val kinds = IntBuffer.wrap(IntArray(rows) { puzzleRow })
            given["puzzle_identifiers"] = OnnxTensor.createTensor(environment, kinds, longArrayOf(rows.toLong()))
        }
        return given
    }

    private fun scalar(value: Int) =
        OnnxTensor.createTensor(environment, IntBuffer.wrap(intArrayOf(value)), longArrayOf())

    private fun OrtSession.Result.tensor(name: String) = get(name).get() as OnnxTensor

    /** The first numbers of an output: those of the one puzzle that was asked. */
    private fun OrtSession.Result.floats(name: String, count: Int) =
        FloatArray(count).also { tensor(name).floatBuffer.get(it) }
}
