# Runs the Vagrantfile against a stand-in for Vagrant that records what it is
# told, and prints the machines as JSON.
require "json"

class Recorder
  attr_reader :seen
  def initialize; @seen = {}; end

  def method_missing(name, *args, **options, &block)
    key = name.to_s.chomp("=")
    if key == "define"
      node = Recorder.new
      block.call(node)
      (@seen["machines"] ||= []) << { "name" => args[0], "options" => options, "config" => node.seen }
      return
    end
    if name.to_s.end_with?("=")
      @seen[key] = args[0]
      return
    end
    child = (@seen["_#{key}"] ||= Recorder.new)
    (@seen["#{key}!"] ||= []) << { "args" => args, "options" => options } unless args.empty?
    block.call(child) if block && key != "ruby"
    child
  end

  def respond_to_missing?(*) = true
  def to_json(*state) = @seen.to_json(*state)
end

module Vagrant
  def self.configure(version)
    config = Recorder.new
    yield config
    puts JSON.generate("version" => version, "config" => config)
  end
end

load ARGV[0]
