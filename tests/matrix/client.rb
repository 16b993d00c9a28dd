require "net/http"
u = URI(ARGV[0])
Net::HTTP.start(u.host, u.port, use_ssl: true, verify_mode: OpenSSL::SSL::VERIFY_NONE) do |h|
  (1..4).each { |i| puts h.get("#{u.path}/#{i}").body; sleep 0.4 }
end
