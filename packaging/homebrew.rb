# packaging/release.sh fills this in; where the tarball is kept, whoever publishes it says.
class Tapline < Formula
  desc "Streaming, zero-temp-file database backups into S3"
  homepage "https://example.com/tapline"
  url "https://example.com/tapline/releases/@NAME@.tar.gz"
  version "@VERSION@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]
  depends_on :linux

  def install
    bin.install "tapline"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/tapline.bash" => "tapline"
    zsh_completion.install "completions/tapline.zsh" => "_tapline"
    fish_completion.install "completions/tapline.fish"
    doc.install "README.md", "CHANGELOG.md", "tapline.example.toml"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tapline --version")
    (testpath/"tapline.toml").write <<~TOML
      [stores.here]
      url = "file://#{testpath}/store"
      [databases.one]
      engine = "command"
      command = ["seq", "9"]
    TOML
    mkdir testpath/"store"
    system bin/"tapline", "backup", "-q"
    assert_equal "1\n2\n3\n4\n5\n6\n7\n8\n9\n", shell_output("#{bin}/tapline restore one --stdout")
  end
end
