"""The halting loop of a model whose segments are models of their own, for Triton's Python backend.

Rows that have halted are sent no more. Only what `config.pbtxt` says is known of the model.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

LEARNED, FIXED = 0, 1


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.told = json.loads(config["parameters"]["loop"]["string_value"])

    def execute(self, requests):
        responses = []
        for request in requests:
            try:
                given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                answer, steps, q = self.think(given)
                tensors = {"answer": answer, "steps": steps, "q": q}
                outputs = [pb_utils.Tensor(name, array) for name, array in tensors.items()]
                responses.append(pb_utils.InferenceResponse(output_tensors=outputs))
            except (ValueError, KeyError, pb_utils.TritonModelException) as error:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses

    def think(self, given):
        """int32[B, S], int32[B], float32[B, 2] of the inputs by name."""
        limit = int(given.get("max_think_steps", np.array([self.told["halt_max_steps"]])).reshape(-1)[0])
        halt = int(given.get("halt", np.array([LEARNED])).reshape(-1)[0])
        if limit < 1 or halt not in (LEARNED, FIXED):
            raise ValueError(f"max_think_steps {limit}, halt {halt}: at least one, and 0 (learned) or 1 (fixed)")
        asked = {name: given[name] for name in self.told["inputs"]["start"]}
        carried = self.ask("start", asked)
        rows, width = asked["tokens"].shape
        answer, steps = np.zeros((rows, width), np.int32), np.zeros(rows, np.int32)
        q, left = np.zeros((rows, 2), np.float32), np.arange(rows)
        for _ in range(limit):
            made = self.ask("segment", {name: carried[name] for name in self.told["inputs"]["segment"]})
            # Where the batch is fixed, rows that have halted are asked on, and what comes of them is not looked at.
            some = left if self.told["rows"] else slice(None)
            answer[left], q[left] = made["logits"][some].argmax(-1), made["q"][some]
            steps[left] += 1
            for name, array in made.items():
                if name.endswith(self.told["next"]):
                    carried[name.removesuffix(self.told["next"])] = array
            goes_on = ~self.stops(q[left]) if halt == LEARNED else np.ones(len(left), bool)
            left = left[goes_on]
            if not len(left):
                break
            if self.told["rows"] is None:
                carried = {name: array[goes_on] for name, array in carried.items()}
        return answer, steps, q

    def stops(self, q):
        left, right = self.told["stops"]["left"], self.told["stops"]["right"]
        return q[:, left] > (0 if right is None else q[:, right])

    def ask(self, graph, inputs):
        """Outputs by name, asked in parts that the server takes together."""
        rows = len(next(iter(inputs.values())))
        size = self.told["together"] if self.told["rows"] is None else rows
        parts = []
        for first in range(0, rows, size):
            request = pb_utils.InferenceRequest(
                model_name=self.told["models"][graph],
                requested_output_names=self.told["outputs"][graph],
                inputs=[
                    pb_utils.Tensor(name, np.ascontiguousarray(array[first : first + size]))
                    for name, array in inputs.items()
                ],
            )
            response = request.exec()
            if response.has_error():
                raise pb_utils.TritonModelException(response.error().message())
            names = self.told["outputs"][graph]
            parts.append({name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in names})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
