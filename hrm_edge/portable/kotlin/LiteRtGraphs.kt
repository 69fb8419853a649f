package hrm

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/** Opens a bundle: the folder that holds `facts.json` and the models, copied out of an app's assets. */
fun openHrm(folder: File): Hrm {
    val facts = JSONObject(File(folder, "facts.json").readText())
    return Hrm(facts, LiteRtGraphs(folder, facts))
}

/** A bundle's models in LiteRT, one puzzle a call and one call at a time; fixed rows are filled up with copies. */
class LiteRtGraphs(folder: File, facts: JSONObject) : Graphs {
    private val graphs = facts.getJSONObject("graphs")
    private val models: Map<String, Interpreter>
    private val next: Map<String, String>
    private val cells = facts.getInt("seq_len")
    private val width = facts.getJSONArray("vocabulary").length()
    private val rows = facts.optInt("batch", 1)
    private val identifiers = !facts.isNull("puzzle_identifiers")

    init {
        models = graphs.keys().asSequence().associateWith {
            Interpreter(File(folder, graphs.getJSONObject(it).getString("file")))
        }
        next = facts.getJSONObject("next").run { keys().asSequence().associateWith { getString(it) } }
    }

    override fun begin(tokens: IntArray, puzzleRow: Int): Thinking {
        val given = mutableMapOf("tokens" to ints(rows * cells) { tokens[it % cells] })
        if (identifiers) given["puzzle_identifiers"] = ints(rows) { puzzleRow }
        var state = call("start", given)
        return object : Thinking {
            override fun segment(): Segment {
                val found = call("segment", state)
                state = next.mapValues { found.getValue(it.value) } + ("e" to state.getValue("e"))
                return Segment(floats(found.getValue("logits"), cells * width), floats(found.getValue("q"), 2))
            }

            override fun close() = Unit
        }
    }

    override fun close() = models.values.forEach { it.close() }

    private fun call(graph: String, given: Map<String, ByteBuffer>): Map<String, ByteBuffer> {
        val outputs = graphs.getJSONObject(graph).getJSONArray("outputs").objects().associate { each ->
            each.getString("name") to buffer(each.ints("shape").fold(1) { size, side -> size * side })
        }
        given.values.forEach { it.rewind() }
        models.getValue(graph).runSignature(given, outputs, "serving_default")
        return outputs
    }

    /** Memory for so many numbers of four bytes. */
    private fun buffer(size: Int) = ByteBuffer.allocateDirect(4 * size).order(ByteOrder.nativeOrder())

    private fun ints(size: Int, value: (Int) -> Int) =
        buffer(size).also { made -> repeat(size) { made.putInt(4 * it, value(it)) } }

    /** The first numbers of an output: those of the one puzzle that was asked. */
    private fun floats(output: ByteBuffer, count: Int) = FloatArray(count) { output.getFloat(4 * it) }
}
