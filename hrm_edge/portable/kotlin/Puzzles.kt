package hrm

import org.json.JSONArray
import org.json.JSONObject

/** Another board of the same puzzle: cell i shows the old cell `cells[i]`, with its token renamed by `tokens`. */
class Variant(private val cells: IntArray, private val tokens: IntArray) {
    fun apply(question: IntArray) = IntArray(cells.size) { tokens[question[cells[it]]] }

    /** An answer to the board that `apply` made, as one to the board it was made from. */
    fun invert(answer: IntArray): IntArray {
        val old = IntArray(tokens.size)
        tokens.forEachIndexed { token, renamed -> old[renamed] = token }
        val found = IntArray(cells.size)
        cells.forEachIndexed { cell, from -> found[from] = old[answer[cell]] }
        return found
    }
}

/** Puzzles of one task as text and as tokens, what makes an answer right, and other boards of the same puzzle. */
class Puzzles(facts: JSONObject) {
    val cells = facts.getInt("seq_len")
    val vocabularySize = facts.getJSONArray("vocabulary").length()
    val variants = facts.getJSONArray("variants").objects().map { Variant(it.ints("cells"), it.ints("tokens")) }
    val hasRules get() = rules != null

    private val padding = facts.getString("padding")
    private val symbols = listOf(padding) + facts.getJSONArray("vocabulary").texts().drop(1)
    private val tokenOf = facts.getJSONObject("symbols").run { keys().asSequence().associateWith { getInt(it) } }
    private val separator = if (facts.isNull("separator")) null else facts.getString("separator")
    private val questionTokens = facts.ints("question_tokens").toSet()
    private val blank = if (facts.isNull("blank")) -1 else facts.getInt("blank")
    private val columns = if (facts.isNull("grid")) cells else facts.getJSONObject("grid").getInt("columns")
    private val rules = if (facts.isNull("rules")) null else facts.getJSONObject("rules")
    private val groups = rules?.optJSONArray("groups")?.arrays().orEmpty()
    private val values = rules?.optJSONArray("values")?.run { (0 until length()).map { getInt(it) } }?.sorted()

    /** One puzzle of `cells` symbols. Throws IllegalArgumentException, with what is wrong, where the text is none. */
    fun parse(text: String): IntArray {
        val between = requireNotNull(separator) { "this task's texts are read by its own code: give tokens" }
        val shown = if (between == "") {
            val characters = text.codePoints().toArray().map { String(Character.toChars(it)) }
            characters.filter { it in tokenOf || it == padding || it.isNotBlank() }
        } else {
            text.trim().split(Regex("\\s+"))
        }
        require(shown.size == cells) { "a puzzle has $cells symbols, not ${shown.size}" }
        return IntArray(cells) {
            requireNotNull(tokenOf[shown[it]] ?: if (shown[it] == padding) 0 else null) {
                "\"${shown[it]}\" at position ${it + 1} is no symbol of this task"
            }
        }
    }

    /** The one-line form, which `parse` reads back. */
    fun format(tokens: IntArray) = tokens.joinToString(separator ?: " ") { symbols[it] }

    /** Throws IllegalArgumentException where tokens are none that a question holds. */
    fun check(question: IntArray) {
        require(question.size == cells) { "a puzzle has $cells tokens, not ${question.size}" }
        question.forEachIndexed { cell, token ->
            require(token in questionTokens) { "token $token at position ${cell + 1} is none of a question" }
        }
    }

    /** Whether an answer obeys the rules and keeps what the question gives; false where no rules are known. */
    fun verify(question: IntArray, answer: IntArray): Boolean {
        val rules = this.rules ?: return false
        return if (rules.getString("kind") == "groups") obeysGroups(question, answer) else isShortestPath(rules, question, answer)
    }

    private fun obeysGroups(question: IntArray, answer: IntArray) =
        question.indices.all { question[it] == blank || question[it] == answer[it] } &&
            groups.all { group -> group.map { answer[it] }.sorted() == values }

    private fun isShortestPath(rules: JSONObject, question: IntArray, answer: IntArray): Boolean {
        val open = rules.getInt("open")
        val path = rules.getInt("path")
        val drawn = question.indices.filter { question[it] != answer[it] }
        if (drawn.any { question[it] != open || answer[it] != path }) return false
        val ends = listOf("start", "goal").map { question.indexOf(rules.getInt(it)) }
        val shortest = moves(ends[0], ends[1]) { question[it] == open }
        return shortest > 0 && moves(ends[0], ends[1], drawn.toSet()::contains) == shortest && drawn.size == shortest - 1
    }

    /** Moves from `start` to `goal` over free cells, 4 neighbours each; -1 where there is no way. */
    private fun moves(start: Int, goal: Int, free: (Int) -> Boolean): Int {
        if (start < 0 || goal < 0) return -1
        val far = IntArray(cells) { -1 }
        val reached = arrayListOf(start)
        far[start] = 0
        var next = 0
        while (next < reached.size) {
            val cell = reached[next++]
            if (cell == goal) return far[cell]
            val near = listOf(cell - columns, cell + columns) +
                listOf(cell - 1, cell + 1).filter { Math.floorDiv(it, columns) == cell / columns }
            for (other in near) {
                if (other in 0 until cells && far[other] < 0 && (other == goal || free(other))) {
                    far[other] = far[cell] + 1
                    reached.add(other)
                }
            }
        }
        return -1
    }
}

internal fun JSONObject.ints(name: String) = getJSONArray(name).run { IntArray(length()) { getInt(it) } }

internal fun JSONArray.texts() = (0 until length()).map { getString(it) }

internal fun JSONArray.objects() = (0 until length()).map { getJSONObject(it) }

private fun JSONArray.arrays() =
    (0 until length()).map { row -> getJSONArray(row).run { IntArray(length()) { getInt(it) } } }
