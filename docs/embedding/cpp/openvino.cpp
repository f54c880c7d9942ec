// Scores photos through OpenVINO's C++ API: fre_openvino MODEL/openvino/model.xml PHOTO...
#include "fre.hpp"

#include <memory>
#include <openvino/openvino.hpp>

namespace {

fre::Graph open(const std::string& file, int threads) {
  ov::Core core;
  const std::shared_ptr<ov::Model> model = core.read_model(file);
  fre::Graph graph;
  if (model->has_rt_info("model_info"))
    for (const auto& [key, value] : model->get_rt_info<ov::AnyMap>("model_info"))
      graph.metadata[key] = value.as<std::string>();

  if (model->inputs().size() != 1) throw std::runtime_error("the graph has not one input");
  const ov::Output<ov::Node> input = model->input();
  std::vector<int64_t> dimensions;
  for (const ov::Dimension& d : input.get_partial_shape())
    dimensions.push_back(d.is_static() ? d.get_length() : -1);
  if (!dimensions.empty()) dimensions.erase(dimensions.begin());
  fre::check_input(graph, input.get_element_type() == ov::element::u8, dimensions);

  ov::AnyMap options = {
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
      // Without this, processors with AMX or AVX512-BF16 run bf16, and scores move by 1-15%. A
      // graph of 8 bits says so itself; the hint is for what it leaves in float.
      ov::hint::inference_precision(fre::lookup(graph, "fre_precision") == "bf16"
                                        ? ov::element::bf16
                                        : ov::element::f32),
  };
  if (threads) options.emplace(ov::inference_num_threads(threads));
  ov::CompiledModel compiled = core.compile_model(model, "CPU", options);
  const auto request = std::make_shared<ov::InferRequest>(compiled.create_infer_request());
  graph.run = [request](const cv::Mat& rgb) {
    const ov::Shape shape = {1, size_t(rgb.rows), size_t(rgb.cols), 3};
    request->set_input_tensor(ov::Tensor(ov::element::u8, shape, rgb.data));  // no copy
    request->infer();
    return fre::Answer{*request->get_tensor("pred_score").data<float>(),
                       *request->get_tensor("pred_label").data<bool>()};
  };
  return graph;
}

}  // namespace

int main(int argc, char** argv) { return fre::run(argc, argv, open); }
