// Feeds both engines what they should not get, past the programs of docs/embedding/cpp, and prints a
// line of "engine case: score or error": wrong_input MODEL_XML MODEL_ONNX PIXELS SIDE
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <openvino/openvino.hpp>

struct Input {
  bool floats;
  std::vector<int64_t> shape;
  std::vector<unsigned char> bytes;
};

template <class Run>
void attempt(const char* engine, const std::string& name, Run run) {
  try {
    std::printf("%s %s: %.9g\n", engine, name.c_str(), run());
  } catch (const std::exception& error) {
    std::string said = error.what();
    std::replace(said.begin(), said.end(), '\n', ' ');
    std::printf("%s %s: error %s\n", engine, name.c_str(), said.c_str());
  }
}

int main(int, char** argv) {
  std::ifstream stream(argv[3], std::ios::binary);
  const std::vector<unsigned char> right{std::istreambuf_iterator<char>(stream), {}};
  const int64_t n = std::stol(argv[4]);
  std::vector<unsigned char> swapped = right, wide(right.size() * sizeof(float));
  for (size_t i = 0; i < swapped.size(); i += 3) std::swap(swapped[i], swapped[i + 2]);
  std::copy(right.begin(), right.end(), reinterpret_cast<float*>(wide.data()));
  std::map<std::string, Input> inputs = {
      {"right", {false, {1, n, n, 3}, right}},     {"swapped", {false, {1, n, n, 3}, swapped}},
      {"size", {false, {1, n - 1, n, 3}, right}},  {"layout", {false, {1, 3, n, n}, right}},
      {"channels", {false, {1, n, n, 1}, right}},  {"type", {true, {1, n, n, 3}, wide}},
  };

  ov::Core core;
  ov::CompiledModel compiled = core.compile_model(
      argv[1], "CPU", ov::hint::inference_precision(ov::element::f32));
  for (auto& [name, input] : inputs)
    attempt("openvino", name, [&, &input = input] {
      ov::InferRequest request = compiled.create_infer_request();
      const ov::Shape shape(input.shape.begin(), input.shape.end());
      request.set_input_tensor(ov::Tensor(input.floats ? ov::element::f32 : ov::element::u8, shape,
                                          input.bytes.data()));
      request.infer();
      return *request.get_tensor("pred_score").data<float>();
    });

  Ort::Env env(ORT_LOGGING_LEVEL_FATAL);
  Ort::Session session(env, argv[2], Ort::SessionOptions{});
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  for (auto& [name, input] : inputs)
    attempt("onnxruntime", name, [&, &input = input] {
      const auto type = input.floats ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                                     : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      const Ort::Value image = Ort::Value::CreateTensor(
          memory, input.bytes.data(), input.bytes.size(), input.shape.data(), 4, type);
      const char *in = "image", *out = "pred_score";
      auto outputs = session.Run(Ort::RunOptions{}, &in, &image, 1, &out, 1);
      return *outputs[0].GetTensorData<float>();
    });
}
