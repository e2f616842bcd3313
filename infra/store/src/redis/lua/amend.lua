-- KEYS: count, then for each: names. ARGV: for each: name, ordinal, profile before, user, profile. Gives for each whether
-- the device was still there with that profile, and so has the other one now.
local done = {}
for k = 2, #KEYS do
  local a = (k - 2) * 5
  local ordinal = device_named(KEYS[k], ARGV[a + 1])
  local device = ordinal == tonumber(ARGV[a + 2]) and device_read(KEYS[1], ordinal)
  local stays = device and device.profile == ARGV[a + 3]
  if stays and device.profile ~= ARGV[a + 5] then
    device_changed(KEYS[1], ordinal)
    if device.user ~= ARGV[a + 4] then
      device_owned(KEYS[1], ordinal, device, false)
      device.user = ARGV[a + 4]
      device_owned(KEYS[1], ordinal, device, true)
    end
    device.profile = ARGV[a + 5]
    device_write(KEYS[1], ordinal, device)
  end
  done[#done + 1] = stays and 1 or 0
end
return done
