// Scores photos through ONNX Runtime's C API, by the header that wraps it for C++:
// fre_onnxruntime MODEL/model.onnx PHOTO...
#include "fre.hpp"

#include <filesystem>
#include <memory>

#define ORT_API_MANUAL_INIT  // so that a library older than its header is an error, not a crash
#include <onnxruntime_cxx_api.h>

namespace {

struct Runtime {
  Ort::Env env{ORT_LOGGING_LEVEL_ERROR, "fre"};
  Ort::Session session{nullptr};
  Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
};

fre::Graph open(const std::string& file, int threads) {
  const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!api)
    throw std::runtime_error("needs ONNX Runtime 1." + std::to_string(ORT_API_VERSION) +
                             " or newer, this is " + OrtGetApiBase()->GetVersionString());
  Ort::InitApi(api);

  const auto runtime = std::make_shared<Runtime>();
  Ort::SessionOptions options;
  if (threads) options.SetIntraOpNumThreads(threads);
  runtime->session = Ort::Session(runtime->env, std::filesystem::path(file).c_str(), options);

  fre::Graph graph;
  Ort::AllocatorWithDefaultOptions allocator;
  const Ort::ModelMetadata metadata = runtime->session.GetModelMetadata();
  for (const auto& key : metadata.GetCustomMetadataMapKeysAllocated(allocator))
    graph.metadata[key.get()] =
        metadata.LookupCustomMetadataMapAllocated(key.get(), allocator).get();

  if (runtime->session.GetInputCount() != 1)
    throw std::runtime_error("the graph has not one input");
  const Ort::TypeInfo type = runtime->session.GetInputTypeInfo(0);
  const auto input = type.GetTensorTypeAndShapeInfo();
  std::vector<int64_t> dimensions = input.GetShape();
  if (!dimensions.empty()) dimensions.erase(dimensions.begin());
  fre::check_input(graph, input.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
                   dimensions);

  graph.run = [runtime](const cv::Mat& rgb) {
    const int64_t shape[] = {1, rgb.rows, rgb.cols, 3};
    const Ort::Value image = Ort::Value::CreateTensor<uint8_t>(  // no copy
        runtime->memory, rgb.data, rgb.total() * rgb.elemSize(), shape, 4);
    const char* inputs[] = {"image"};
    const char* wanted[] = {"pred_score", "pred_label"};
    const auto outputs = runtime->session.Run(Ort::RunOptions{}, inputs, &image, 1, wanted, 2);
    return fre::Answer{*outputs[0].GetTensorData<float>(), *outputs[1].GetTensorData<bool>()};
  };
  return graph;
}

}  // namespace

int main(int argc, char** argv) { return fre::run(argc, argv, open); }
