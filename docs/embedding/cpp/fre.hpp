// What both programs share: a photo becomes the graph's input, its answer a line of JSON.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

namespace fre {

struct Answer {
  float score;  // 0..1, 0.5 is the threshold; NaN: the photo is not to be judged
  bool anomalous;
};

// A loaded graph. `run` takes height x width x 3 bytes, RGB, without gaps between the rows.
struct Graph {
  int height, width;
  std::map<std::string, std::string> metadata;
  std::function<Answer(const cv::Mat&)> run;
};

// The input's type and its dimensions but for the first, as the engine reports them.
inline void check_input(Graph& graph, bool is_uint8, const std::vector<int64_t>& dimensions) {
  if (!is_uint8 || dimensions.size() != 3 || dimensions[2] != 3)
    throw std::runtime_error("the graph takes no uint8 N x H x W x 3; export with --io uint8");
  graph.height = static_cast<int>(dimensions[0]);
  graph.width = static_cast<int>(dimensions[1]);
}

inline std::string lookup(const Graph& graph, const std::string& key) {
  const auto found = graph.metadata.find(key);
  if (found == graph.metadata.end())
    throw std::runtime_error("the graph does not tell " + key + "; export the model again");
  return found->second;
}

// Refuses graphs that want their photos prepared in another way than `resize` does it.
inline void check_metadata(const Graph& graph) {
  for (const auto& [key, value] : {std::pair("fre_resize", "halve-area-linear"),
                                   std::pair("fre_colour", "RGB")})
    if (const std::string found = lookup(graph, key); found != value)
      throw std::runtime_error(std::string("this program prepares photos by ") + key + " = " +
                               value + ", the graph wants " + found);
  const std::string view = lookup(graph, "fre_view");
  for (const char* part : {R"("regions": [])", R"("tile": [])", R"("aspect": "stretch")"})
    if (view.find(part) == std::string::npos)
      throw std::runtime_error("this program looks at whole photos, the graph wants " + view);
}

// Whether a JPEG ends before its end: OpenCV before 5.0 fills the rest with grey, and says nothing.
inline bool is_cut(const std::vector<unsigned char>& data) {
  if (data.size() < 2 || data[0] != 0xFF || data[1] != 0xD8) return false;
  size_t at = 2;  // over the segments, one of which may hold a whole JPEG, to the scan
  while (at + 4 <= data.size() && data[at] == 0xFF && data[at + 1] != 0xDA)
    at += data[at + 1] == 0xFF ? 1 : 2 + (data[at + 2] << 8 | data[at + 3]);  // 0xFF may repeat
  const unsigned char end[] = {0xFF, 0xD9};
  return at > data.size() ||
         std::search(data.begin() + at, data.end(), std::begin(end), std::end(end)) == data.end();
}

// Reads a photo as fre_runtime does: upright, 8 bits, three channels; here turned to RGB.
inline cv::Mat read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::vector<unsigned char> data{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw std::runtime_error("cannot be opened");
  if (is_cut(data)) throw std::runtime_error("is truncated");
  const cv::Mat image = data.empty() ? cv::Mat() : cv::imdecode(data, cv::IMREAD_COLOR);
  if (image.empty()) throw std::runtime_error("is no image that OpenCV can read, or damaged");
  cv::Mat rgb;
  cv::cvtColor(image, rgb, cv::COLOR_BGR2RGB);
  return rgb;
}

inline cv::Mat resized(const cv::Mat& image, int height, int width, int interpolation) {
  cv::Mat out;
  cv::resize(image, out, {width, height}, 0, 0, interpolation);
  return out;
}

// The rule "halve-area-linear": halved while both sides are even and at least twice the wanted
// ones; then linearly to twice the size and halved, or by area along the axes that shrink and
// linearly along those that grow.
inline cv::Mat resize(cv::Mat image, int height, int width) {
  const auto halve = [&] {
    image = resized(image, image.rows / 2, image.cols / 2, cv::INTER_AREA);
  };
  const auto can_halve = [](int side, int wanted) { return side % 2 == 0 && side >= 2 * wanted; };
  bool halved = false;
  for (; can_halve(image.rows, height) && can_halve(image.cols, width); halved = true) halve();
  if (image.rows == height && image.cols == width) return image;
  if (halved && image.rows <= 3 * height && image.cols <= 3 * width) {
    image = resized(image, 2 * height, 2 * width, cv::INTER_LINEAR);
    halve();
    return image;
  }
  const int rows = std::min(image.rows, height), columns = std::min(image.cols, width);
  if (rows != image.rows || columns != image.cols)
    image = resized(image, rows, columns, cv::INTER_AREA);
  if (rows != height || columns != width)
    image = resized(image, height, width, cv::INTER_LINEAR);
  return image;
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[8];
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out + '"';
}

inline void score(const Graph& graph, const std::string& file, int repeat) {
  const double threshold = std::stod(lookup(graph, "fre_image_threshold"));
  const double spread = std::stod(lookup(graph, "fre_image_spread"));
  const cv::Mat photo = read(file);
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Answer answer = graph.run(resize(photo, graph.height, graph.width));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    const double p = answer.score;
    if (std::isnan(p)) throw std::runtime_error("the score is not a number: not to be judged");
    const double below_one = std::min(p, 1 - std::ldexp(1.0, -25));  // no infinite raw score
    std::printf("{\"source\": %s, \"state\": \"%s\", \"score\": %.9g, \"raw_score\": %.9g, "
                "\"ms\": %.4f}\n",
                quoted(file).c_str(), answer.anomalous ? "anomalous" : "good", p,
                threshold * std::pow(below_one / (1 - below_one), spread), took.count());
  }
}

inline int fail(const std::string& what, std::string why) {
  std::replace_if(why.begin(), why.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s: %s\n", what.c_str(), why.c_str());
  return 1;
}

inline int usage(const char* program) {
  std::fprintf(stderr, "usage: %s [--threads N] [--repeat N] GRAPH PHOTO...\n", program);
  return 2;
}

// The command line: one line of JSON a photo; exit code 1 where a graph or a photo failed.
inline int run(int argc, char** argv, Graph (*open)(const std::string& file, int threads)) {
  int threads = 0, repeat = 1;  // 0 threads: the engine chooses
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word != "--threads" && word != "--repeat") {
      if (word.rfind("--", 0) == 0) return usage(argv[0]);
      files.push_back(word);
      continue;
    }
    int& number = word == "--threads" ? threads : repeat;
    char* end = nullptr;
    const long value = ++i < argc ? std::strtol(argv[i], &end, 10) : 0;
    if (end == nullptr || *end != '\0' || value < 1 || value > 1'000'000) return usage(argv[0]);
    number = static_cast<int>(value);
  }
  if (files.size() < 2) return usage(argv[0]);

  Graph graph;
  try {
    graph = open(files[0], threads);
    check_metadata(graph);
  } catch (const std::exception& error) {
    return fail(files[0], error.what());
  }
  int code = 0;
  for (auto file = files.begin() + 1; file != files.end(); ++file) {
    try {
      score(graph, *file, repeat);
    } catch (const std::exception& error) {
      code = fail(*file, error.what());
    }
  }
  return code;
}

}  // namespace fre
